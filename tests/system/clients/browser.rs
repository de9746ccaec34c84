//! MQTT.js over WebSocket: as a device by certificate, and as a person's page by name and token.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Listening, Ward, text, told};

/// The environment that `test.sh` makes has MQTT.js in it.
pub(super) fn modules() -> PathBuf {
    let modules = std::env::var_os("VITALSEAL_INTEROP_NODE").map(PathBuf::from);
    let modules = modules.unwrap_or_else(|| crate::python::cache().join("interop-node"));
    assert!(
        modules.is_dir(),
        "{} is not there; run ./test.sh once",
        modules.display()
    );
    modules
}

/// One run of the script.
fn node(args: &[&str]) -> Command {
    let mut command = Command::new("node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.mjs");
    command
        .arg(script)
        .args(args)
        .env("VITALSEAL_INTEROP_NODE", modules());
    command
}

#[test]
fn mqtt_js_is_a_device_over_websocket() {
    let ward = Ward::new();
    let url = ward.websocket();
    for version in ["4", "5"] {
        let id = &format!("js-{version}");
        let directory = ward.device(id);
        let files = ward.files(&directory);
        let mut args = vec!["device", &url];
        args.extend(files.iter().map(String::as_str));
        args.extend([id, version, text(&directory)]);
        ward.check(id, &told(node(&args).output().unwrap()));
    }
}

#[test]
fn mqtt_js_hears_alerts_by_certificate_and_by_token_and_no_others() {
    let ward = Ward::new();
    let (url, ca) = (ward.websocket(), ward.ca());
    let directory = ward.subscriber("door", &["--ward", "icu"]);
    let files = ward.files(&directory);
    ward.site.json(&["user", "grant-ward", "nora", "icu"]);
    for version in ["4", "5"] {
        let mut by_certificate = vec!["listen", &url];
        by_certificate.extend(files.iter().map(String::as_str));
        by_certificate.extend(["display:door", version, "v1/alerts/icu"]);
        let by_token = |token, topic| {
            node(&[
                "login",
                &url,
                text(&ca),
                "nora",
                token,
                "tablet",
                version,
                topic,
            ])
        };
        let listening = [
            Listening::start(node(&by_certificate)),
            Listening::start(by_token(&ward.token, "v1/alerts/icu")),
        ];
        ward.site.json(&["alert", "test", "--ward", "icu"]);
        listening.into_iter().for_each(Listening::shows_the_test);

        for (token, topic) in [
            (&*ward.token, "v1/alerts/er"),
            ("vs_wrong", "v1/alerts/icu"),
        ] {
            let refused = by_token(token, topic).output().unwrap();
            assert!(!refused.status.success(), "{refused:?}");
        }
    }
    let tail = ward.site.json(&["audit", "tail"]).to_string();
    assert!(tail.contains("login_failed"), "{tail}");
}
