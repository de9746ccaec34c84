//! A page in a real browser: it logs in by name and token, hears an alert, and only from a listed origin.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::browser::modules;
use super::{Ward, text};
use crate::common::wait_until;

/// What the page does; what it sees it asks its server for, as a path.
const PAGE: &str = r#"<!doctype html><script src="/mqtt.js"></script><script>
const say = (what) => fetch("/" + encodeURIComponent(what));
const [url, password] = ["{url}", "{token}"];
const client = mqtt.connect(url, {
  username: "nora", password, clientId: "page", protocolVersion: 5, reconnectPeriod: 0,
});
client.on("message", (topic, message) => say(`heard ${topic} ${message}`));
client.on("connect", () => client.subscribe("v1/alerts/icu", { qos: 1 }, () => say("subscribed")));
client.on("close", () => say("closed"));
</script>"#;

/// The server of a page, on loopback.
struct PageServer {
    listener: TcpListener,
    page: String,
}

impl PageServer {
    fn origin(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// Serves until the page says something.
    fn said(&self) -> String {
        loop {
            let (stream, _) = self.listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            match path {
                "/" => answer(&stream, "text/html", self.page.as_bytes()),
                "/mqtt.js" => {
                    let script = modules().join("node_modules/mqtt/dist/mqtt.min.js");
                    answer(&stream, "text/javascript", &std::fs::read(script).unwrap());
                }
                "/favicon.ico" | "" => answer(&stream, "text/plain", b""),
                said => {
                    answer(&stream, "text/plain", b"");
                    return said.to_owned();
                }
            }
        }
    }
}

fn answer(mut stream: &TcpStream, kind: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A browser that opened one connection too many has closed it.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
}

/// Ends with the test.
struct Chromium(Child);

impl Chromium {
    /// The server's certificate is of an authority that the browser does not have; who the server is, is not the
    /// question here.
    fn open(url: &str, profile: PathBuf) -> Self {
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--ignore-certificate-errors",
                "--no-first-run",
                "--disable-background-networking",
            ])
            .arg(format!("--user-data-dir={}", text(&profile)))
            .args(["--remote-debugging-port=0", url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("test.sh installs chromium");
        Self(child)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_page_hears_alerts_only_when_its_origin_is_listed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pages = PageServer {
        listener,
        page: String::new(),
    };
    let (listed, other) = (
        pages.origin(),
        pages.origin().replace("127.0.0.1", "localhost"),
    );
    let ward =
        Ward::with(|text| text.replace("origins = []", &format!("origins = [\"{listed}\"]")));
    ward.site.json(&["user", "grant-ward", "nora", "icu"]);
    let page = PAGE.replace("{url}", &ward.websocket());
    pages.page = page.replace("{token}", &ward.token);
    let open =
        |origin: &str, profile: &str| Chromium::open(origin, ward.site.dir.path().join(profile));
    let browser = open(&listed, "listed");
    assert_eq!(pages.said(), "/subscribed");
    ward.site.json(&["alert", "test", "--ward", "icu"]);
    let heard = pages.said();
    assert!(
        heard.contains("v1%2Falerts%2Ficu") && heard.contains("test"),
        "{heard}"
    );
    drop(browser);

    let refused = || ward.site.log_text().contains("reason=\"upgrade\"");
    assert!(!refused());
    let _browser = open(&other, "other");
    assert_eq!(pages.said(), "/closed");
    wait_until(refused, "it was not refused for what it is");
}
