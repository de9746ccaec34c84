//! Between a store and its bucket: passes requests on, or fails as networks and servers do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What befalls one connection. The server closes each after one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Answered with 500, and never passed on.
    Error,
    /// Closed before a byte of an answer.
    Reset,
    /// Passed on whole; the answer is lost.
    LostAnswer,
    /// Passed on a little later.
    Slow(Duration),
    /// So many bytes of the request are passed on, and then nothing more happens.
    Stall(usize),
}

/// Its faults are used up in order; then it passes everything on.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    faults: Arc<Mutex<Vec<Fault>>>,
    stalled: Arc<Notify>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            faults: Arc::default(),
            stalled: Arc::default(),
        };
        let (faults, stalled) = (Arc::clone(&proxy.faults), Arc::clone(&proxy.stalled));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fault = {
                    let mut faults = faults.lock().unwrap();
                    (!faults.is_empty()).then(|| faults.remove(0))
                };
                let stalled = Arc::clone(&stalled);
                tokio::spawn(async move {
                    // A peer that went away is what many of these tests are about.
                    let _ = pass(client, server, fault, &stalled).await;
                });
            }
        });
        proxy
    }

    /// The next connections.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend_from_slice(faults);
    }

    /// How many faults nothing befell yet.
    pub(crate) fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// Until a connection stalls.
    pub(crate) async fn stalled(&self) {
        self.stalled.notified().await;
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    fault: Option<Fault>,
    stalled: &Notify,
) -> std::io::Result<()> {
    match fault {
        Some(Fault::Reset) => return Ok(()),
        Some(Fault::Error) => {
            request(&mut client).await?;
            let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(answer).await;
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let mut server = TcpStream::connect(server).await?;
    match fault {
        Some(Fault::LostAnswer) => {
            server.write_all(&request(&mut client).await?).await?;
            let mut answer = [0; 1];
            server.read_exact(&mut answer).await?;
            Ok(())
        }
        Some(Fault::Stall(bytes)) => {
            let mut begun = vec![0; bytes];
            client.read_exact(&mut begun).await?;
            server.write_all(&begun).await?;
            stalled.notify_one();
            // Until the client is gone; the server sees its connection end in the middle of a request.
            while client.read(&mut begun).await? != 0 {}
            Ok(())
        }
        _ => copy_bidirectional(&mut client, &mut server).await.map(drop),
    }
}

/// A whole request: its head, and as many bytes as that says.
async fn request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        client.read_buf(&mut request).await?;
        let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        let mut body = vec![0; (end + 4 + length).saturating_sub(request.len())];
        client.read_exact(&mut body).await?;
        request.extend(body);
        return Ok(request);
    }
}
