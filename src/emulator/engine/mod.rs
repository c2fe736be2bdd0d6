//! temp
use super::group::id::GroupKey;
use super::options::EngineSocket;
use super::shared::Shared;
use bytes::Bytes;
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncWrite;
/// e
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
/// t
pub struct Terminal {
    /// o
    pub output: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    /// i
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}
/// e
pub struct Engine;
impl Engine {
    /// x
    pub async fn connect(_: &EngineSocket) -> Result<Self, Error> {
        Err(Error)
    }
    /// x
    pub fn deploy(&self, _: &Arc<Shared>, _: GroupKey) {}
    /// x
    pub fn stop(&self, _: &Arc<Shared>, _: GroupKey) {}
    /// x
    pub fn remove(&self, _: &Arc<Shared>, _: GroupKey) {}
    /// x
    pub async fn logs(&self, _: &GroupKey, _: &str, _: Option<usize>, _: bool) -> String {
        String::new()
    }
    /// x
    pub async fn exec(
        &self,
        _: &GroupKey,
        _: &str,
        _: Vec<String>,
        _: (u16, u16),
    ) -> Result<Terminal, Error> {
        Err(Error)
    }
    /// x
    pub async fn attach(&self, _: &GroupKey, _: &str) -> Result<Terminal, Error> {
        Err(Error)
    }
    /// x
    pub async fn clean_up(&self) {}
}
