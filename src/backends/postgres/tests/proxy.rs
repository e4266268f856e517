//! [`Proxy`]: a socket between base and server that loses what it is told to lose.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    None,
    /// The first message that begins a commit does not arrive; its connection ends.
    Commit,
    /// It arrives and is carried out; the answer does not come back, and its connection ends.
    Answer,
    /// As `Answer`, and then no connection goes through.
    AnswerAndServer,
    /// No connection goes through.
    Server,
}

pub(super) struct Proxy {
    dir: tempfile::TempDir,
    loss: Arc<Mutex<Loss>>,
}

impl Proxy {
    /// A proxy to the server whose socket's directory is in the URL.
    pub(super) fn to(url: &str) -> Proxy {
        let socket = url.split('@').nth(1).unwrap().split(':').next().unwrap().replace("%2F", "/");
        let server = PathBuf::from(socket).join(".s.PGSQL.5432");
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let loss = Arc::new(Mutex::new(Loss::None));
        let shared = loss.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), shared.clone()));
            }
        });
        Proxy { dir, loss }
    }

    pub(super) fn lose(&self, loss: Loss) {
        *self.loss.lock() = loss;
    }

    pub(super) fn url(&self, url: &str) -> String {
        let (user, rest) = url.split_once('@').unwrap();
        let socket = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("{user}@{socket}:{}", rest.split_once(':').unwrap().1)
    }
}

/// Carries a connection until either side ends it or it is lost.
async fn carry(mut client: UnixStream, server: PathBuf, loss: Arc<Mutex<Loss>>) {
    let Ok(mut server) = UnixStream::connect(server).await else { return };
    let (mut said, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        if matches!(*loss.lock(), Loss::Server) {
            return;
        }
        tokio::select! {
            read = client.read(&mut said) => {
                let Ok(len @ 1..) = read else { return };
                let commits = said[..len].windows(8).any(|bytes| bytes == b"\x0bcommit\0");
                let lost = if commits { *loss.lock() } else { Loss::None };
                if lost == Loss::Commit {
                    *loss.lock() = Loss::None;
                    return;
                }
                if server.write_all(&said[..len]).await.is_err() {
                    return;
                }
                if matches!(lost, Loss::Answer | Loss::AnswerAndServer) {
                    let _ = server.read(&mut answered).await;
                    *loss.lock() = if lost == Loss::Answer { Loss::None } else { Loss::Server };
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(len @ 1..) = read else { return };
                if client.write_all(&answered[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}
