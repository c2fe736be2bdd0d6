//! The image of the infra container: one static program of about 130 bytes that waits forever.
//!
//! In: the engine's architecture. Out: the image. The emulator imports it into each engine once and
//! keeps it for later runs. It needs no registry and no compiler.
//!
//! Tested with podman 4.3.1: an import (`/images/create?fromSrc=-`) applies `changes` and ignores
//! `tag`, so `repo` contains the tag, which Docker accepts as well. Docker and podman import an image
//! with the daemon's own architecture. The program runs as process 1, and the kernel does not deliver
//! signals to process 1 without a handler: the emulator always kills it and never sends SIGTERM.

use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;

use super::client::EngineClient;
use super::error::EngineError;

/// The image's name.
pub const IMAGE: &str = "localhost/burstpool-aci-emulator/pause:1";
/// The path of the program in the image.
pub const PROGRAM: &str = "/pause";
/// A label that marks the image as the emulator's.
const LABEL: &str = "LABEL burstpool.aci-emulator.image=pause";

/// `start: mov eax, 34 (pause); syscall; jmp start`.
const X86_64: [u8; 9] = [0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
/// `start: mov x0..x3, 0; mov x8, 73 (ppoll: arm64 has no pause call); svc 0; b start`.
const AARCH64: [u8; 28] = [
    0x00, 0x00, 0x80, 0xd2, // mov x0, #0: no file descriptors
    0x01, 0x00, 0x80, 0xd2, // mov x1, #0: zero of them
    0x02, 0x00, 0x80, 0xd2, // mov x2, #0: no timeout
    0x03, 0x00, 0x80, 0xd2, // mov x3, #0: keep the signal mask
    0x28, 0x09, 0x80, 0xd2, // mov x8, #73
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0xfa, 0xff, 0xff, 0x17, // b start
];

/// Imports the image unless the engine has it.
pub async fn ensure(client: &EngineClient) -> Result<(), EngineError> {
    if client.image(IMAGE).await?.is_some() {
        return Ok(());
    }
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(IMAGE)
        .changes(vec![LABEL.to_owned()])
        .build();
    client
        .import(options, archive(client.architecture())?)
        .await
}

/// A tar archive of a root file system with the program.
fn archive(architecture: &str) -> Result<Bytes, EngineError> {
    let program = program(architecture);
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(
            &mut header,
            PROGRAM.trim_start_matches('/'),
            program.as_slice(),
        )
        .and_then(|()| archive.into_inner())
        .map(Bytes::from)
        .map_err(|source| EngineError::Files {
            path: PROGRAM.into(),
            source,
        })
}

/// The program as an ELF file: a file header, one program header that maps the whole file
/// read-only and executable, and the code.
fn program(architecture: &str) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    // Machine numbers from the ELF specification.
    let (machine, code): (u16, &[u8]) = match architecture {
        "arm64" | "aarch64" => (183, &AARCH64),
        _ => (62, &X86_64),
    };
    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01"); // 64 bits, little endian, version 1
    elf.extend([0; 9]);
    elf.extend(2u16.to_le_bytes()); // an executable
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes()); // version
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry point
    elf.extend(64u64.to_le_bytes()); // offset of the program header
    elf.extend(0u64.to_le_bytes()); // no sections
    elf.extend(0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes()); // sizes and counts of headers
    }
    elf.extend(1u32.to_le_bytes()); // a segment to load
    elf.extend(5u32.to_le_bytes()); // readable and executable
    for quad in [0, BASE, BASE, size, size, 0x1_0000] {
        elf.extend(quad.to_le_bytes()); // offset, addresses, sizes, alignment (some machines have pages of 64 KiB)
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_one_small_elf_file_for_each_architecture() {
        let (amd, arm) = (program("amd64"), program("arm64"));
        assert_eq!((amd.len(), amd[18]), (129, 62));
        assert_eq!((arm.len(), arm[18]), (148, 183));
        assert!(amd.starts_with(b"\x7fELF") && amd.ends_with(&X86_64));
    }
}
