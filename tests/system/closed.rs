//! Failure is closed: a server that lacks a part of what it decides by does not start, and says which.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Site, VITALSEAL};

/// What may have happened to a file. Root reads whatever it may not, so an unreadable one is a directory here.
const DAMAGES: [&str; 5] = ["missing", "a directory", "empty", "cut in half", "garbage"];

fn damage(file: &Path, how: &str) {
    let bytes = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    match how {
        "missing" => {}
        "a directory" => fs::create_dir(file).unwrap(),
        "empty" => fs::write(file, b"").unwrap(),
        "cut in half" => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        "garbage" => fs::write(file, vec![b'Z'; bytes.len()]).unwrap(),
        _ => unreachable!(),
    }
}

/// Starts a server; what it said when it did not start, `None` when it did.
fn refusal(data: &Path) -> Option<String> {
    let any = "127.0.0.1:0";
    let mut child = Command::new(VITALSEAL)
        .args([
            "serve", "--mqtt", any, "--sql", any, "--http", any, "--data",
        ])
        .arg(data)
        .env("VITALSEAL_LOG", "error")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    if !line.is_empty() {
        child.kill().unwrap();
        child.wait().unwrap();
        return None;
    }
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    Some(said)
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// The one file in `directory` whose name begins so.
fn only(directory: &Path, begin: &str) -> PathBuf {
    let names = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found = names.filter(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(begin)
    });
    let first = found.next().unwrap();
    assert_eq!(found.next(), None);
    first
}

/// The files of a cluster that is consumed from, in the configuration, too. Nobody has to be there for a start.
fn cluster(site: &Site, device: &Path) -> PathBuf {
    let directory = site.dir.path().join("cluster");
    copy(device, &directory);
    let password = directory.join("password");
    fs::write(&password, "correct horse").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let file = |name: &str| directory.join(name).display().to_string();
    let settings = format!(
        "\n[mqtt.cluster]\nhost = \"localhost\"\nport = 1\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\nuser = \"v\"\n\
         password_file = \"{}\"\n",
        file("ca.pem"),
        file("cert.pem"),
        file("key.pem"),
        file("password"),
    );
    let config = site.data.join("vitalseal.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(config, text + &settings).unwrap();
    directory
}

#[test]
fn no_server_starts_without_all_that_it_decides_by() {
    let mut site = Site::serving();
    let monitor = site.device("mon-1", &site.patient());
    assert_eq!(site.terminate(), 0);
    let (data, root) = (site.data.clone(), site.data.with_extension("root"));
    let cluster = cluster(&site, &monitor);
    let kept = site.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    copy(&data, &kept.join("data"));
    copy(&root, &kept.join("data.root"));
    copy(&cluster, &kept.join("cluster"));

    let files = [
        data.join("vitalseal.toml"),
        data.join("registry.sqlite"),
        data.join("inbox.sqlite"),
        data.join("audit.sqlite"),
        data.join("audit.vkey"),
        data.join("ca-root.pem"),
        data.join("ca-issuing.pem"),
        only(&root, "root-"),
        only(&root, "recipient-"),
        cluster.join("ca.pem"),
        cluster.join("cert.pem"),
        cluster.join("key.pem"),
        cluster.join("password"),
    ];
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        for how in DAMAGES {
            damage(&file, how);
            match refusal(&data) {
                // A cover that is gone was destroyed with its envelope key, and there is a new one.
                None if name.starts_with("recipient-") && how == "missing" => {}
                // The first of two certificates is enough to trust.
                None if name == "ca.pem" && how == "cut in half" => {}
                // A wrong password is one all the same: the cluster says so.
                None if name == "password" && ["cut in half", "garbage"].contains(&how) => {}
                None => wrong.push(format!("{name} {how}: it started")),
                Some(said) => {
                    let no_store = name == "registry.sqlite" && said.contains("holds");
                    let named = said.contains(name) || no_store;
                    let root = name.starts_with("root-") && said.contains("data.root");
                    let clear = (named || root) && !said.contains("panicked");
                    if !clear {
                        wrong.push(format!("{name} {how}: {said}"));
                    }
                }
            }
            for (from, to) in [("data", &data), ("data.root", &root), ("cluster", &cluster)] {
                fs::remove_dir_all(to).unwrap();
                copy(&kept.join(from), to);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refusal(&data), None, "whole again, it starts");
}
