//! The emulated Azure, with real containers if an engine can run the sample's image.
//!
//! In: a container engine, if one answers. Out: the emulator, and a line on standard output that says
//! which kind of containers it has.

use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use burstpool::emulator::{Emulator, EmulatorOptions, EngineSocket, engine};
use futures::TryStreamExt as _;

use crate::Mode;

/// The image of the sample's pods.
const IMAGE: &str = "docker.io/library/nginx:latest";

/// A running Azure. The caller must stop it: real containers do not end with this process.
pub struct Azure {
    pub emulator: Emulator,
    pub has_containers: bool,
    /// How many times as fast as the real one it runs.
    pub speed: f64,
}

impl Azure {
    pub async fn start(mode: Mode) -> anyhow::Result<Self> {
        println!("==> Starting an emulated Azure");
        let simulated = EmulatorOptions {
            speed: if mode.is_fast { 10.0 } else { 5.0 },
            ..EmulatorOptions::default()
        };
        let speed = simulated.speed;
        let (emulator, has_containers) = match real(mode, &simulated).await {
            Ok(emulator) => {
                println!("    containers are real");
                (emulator, true)
            }
            Err(why) => {
                println!("    containers are simulated: {why}");
                (Emulator::start(simulated).await?, false)
            }
        };
        Ok(Self {
            emulator,
            has_containers,
            speed,
        })
    }
}

/// Starts an emulator with real containers, or says why it cannot.
async fn real(mode: Mode, simulated: &EmulatorOptions) -> Result<Emulator, String> {
    let socket = engine(mode).await?;
    let real = EmulatorOptions {
        containers: Some(EngineSocket::At(socket)),
        ..simulated.clone()
    };
    let started = Emulator::start(real).await;
    started.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

/// The socket of an engine that has the sample's image, or can pull it.
async fn engine(mode: Mode) -> Result<PathBuf, String> {
    let paths = engine::candidates(&EngineSocket::Usual).map_err(|error| error.to_string())?;
    for path in paths {
        let name = path.to_string_lossy();
        let Ok(docker) = Docker::connect_with_unix(&name, 60, bollard::API_DEFAULT_VERSION) else {
            continue;
        };
        if docker.ping().await.is_ok() {
            image(&docker, mode).await?;
            return Ok(path);
        }
    }
    Err("no container engine answers".to_owned())
}

/// Checks that the engine has the sample's image, or pulls it.
async fn image(docker: &Docker, mode: Mode) -> Result<(), String> {
    if docker.inspect_image(IMAGE).await.is_ok() {
        return Ok(());
    }
    if mode.is_fast {
        return Err(format!(
            "the container engine has no {IMAGE}, and getting it takes long"
        ));
    }
    println!("    getting {IMAGE}");
    let wanted = bollard::query_parameters::CreateImageOptionsBuilder::new()
        .from_image(IMAGE)
        .build();
    let pulled = docker.create_image(Some(wanted), None, None);
    let pulled = pulled.try_for_each(|_| async { Ok(()) });
    match tokio::time::timeout(Duration::from_mins(1), pulled).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(format!("the container engine cannot get {IMAGE}")),
    }
}
