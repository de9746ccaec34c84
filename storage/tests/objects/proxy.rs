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
    /// Taken whole, and passed on only when [`Proxy::release`] says so, whoever waits for it or not.
    Held,
    /// So many bytes of the request are passed on, and then nothing more happens.
    Stall(usize),
}

/// Its faults are used up in order, each by a request of its method; whatever finds none is passed on.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    faults: Arc<Mutex<Vec<(&'static str, Fault)>>>,
    stalled: Arc<Notify>,
    released: Arc<Notify>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            faults: Arc::default(),
            stalled: Arc::default(),
            released: Arc::default(),
        };
        let (faults, stalled) = (Arc::clone(&proxy.faults), Arc::clone(&proxy.stalled));
        let released = Arc::clone(&proxy.released);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let faults = Arc::clone(&faults);
                let (stalled, released) = (Arc::clone(&stalled), Arc::clone(&released));
                tokio::spawn(async move {
                    let mut begins = [0; 8];
                    let read = client.peek(&mut begins).await.unwrap_or(0);
                    let fault = {
                        let mut faults = faults.lock().unwrap();
                        let fits = |(method, _): &(&str, Fault)| {
                            begins[..read].starts_with(method.as_bytes())
                        };
                        let first = faults.iter().position(fits);
                        first.map(|first| faults.remove(first).1)
                    };
                    // A peer that went away is what many of these tests are about.
                    let _ = pass(client, server, fault, &stalled, &released).await;
                });
            }
        });
        proxy
    }

    /// The next requests with this method; an empty one stands for any.
    pub(crate) fn fail(&self, method: &'static str, faults: &[Fault]) {
        let faults = faults.iter().map(|fault| (method, *fault));
        self.faults.lock().unwrap().extend(faults);
    }

    /// How many faults nothing befell yet.
    pub(crate) fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// Passes on everything from here on.
    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// What was held goes on.
    pub(crate) fn release(&self) {
        self.released.notify_one();
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
    released: &Notify,
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
        Some(Fault::Held) => {
            let request = request(&mut client).await?;
            released.notified().await;
            server.write_all(&request).await?;
            server.read_to_end(&mut Vec::new()).await.map(drop)
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
