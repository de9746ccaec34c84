//! What the file may say and what it may not.

use super::commented::{commented_out, example};
use super::*;

#[test]
fn the_commented_file_says_exactly_the_defaults() {
    let further = vec!["vitals.example.org".to_owned()];
    let config = Config::new(
        PathBuf::from("/srv/vital \"seal\".root"),
        PathBuf::from("/mnt/vitals.keys"),
        further,
    );
    let parsed: Config = toml::from_str(&config.commented()).unwrap();
    assert_eq!(parsed, config);

    let mut on_token = config.clone();
    on_token.keys.pkcs11 = Some(Pkcs11 {
        audit_log: true,
        ..example()
    });
    let parsed: Config = toml::from_str(&on_token.commented()).unwrap();
    assert_eq!(parsed, on_token);
    let mut in_cluster = config.clone();
    in_cluster.mqtt.cluster = Some(Cluster {
        cert: None,
        key: None,
        only: true,
        ..Cluster::example()
    });
    let parsed: Config = toml::from_str(&in_cluster.commented()).unwrap();
    assert_eq!(parsed, in_cluster);
    let commented = commented_out(&Cluster::example().lines());
    let text = config
        .commented()
        .replace(&commented, &Cluster::example().lines());
    let parsed: Config = toml::from_str(&text).unwrap();
    assert_eq!(parsed.mqtt.cluster, Some(Cluster::example()));
    // The line that an operator takes the comment signs from.
    let text = config
        .commented()
        .replace(&commented_out(&example().lines()), &example().lines());
    let parsed: Config = toml::from_str(&text).unwrap();
    assert_eq!(parsed.keys.pkcs11, Some(example()));
}

#[test]
fn a_token_is_named_so_that_nothing_else_can_be_meant() {
    assert!(example().check().is_ok());
    let named = |label: &str| Pkcs11 {
        label: label.to_owned(),
        ..example()
    };
    for label in ["", "two words", "n/rth", "\u{e9}", &"x".repeat(41)] {
        assert!(named(label).check().is_err(), "{label:?}");
    }
    let found_somewhere = Pkcs11 {
        module: PathBuf::from("libsofthsm2.so"),
        ..example()
    };
    assert!(found_somewhere.check().is_err());
}

/// Also below the last table, of which everything is optional.
#[test]
fn a_file_that_was_cut_off_is_refused_wherever_that_was() {
    let new = Config::new(PathBuf::from("/r"), PathBuf::from("/k"), Vec::new());
    let text = new.commented();
    let last = text.find("[report]").unwrap() + "[report]".len();
    for cut in 0..last {
        assert!(Config::parse(&text[..cut]).is_err(), "{}", &text[..cut]);
    }
    assert_eq!(Config::parse(&text[..last]).unwrap(), new);
}

#[test]
fn an_origin_is_what_a_browser_would_say() {
    let check = |origin: &str| check_origins(&[origin.to_owned()]);
    for origin in ["https://ward.example.org", "http://10.0.0.7:8080"] {
        assert!(check(origin).is_ok(), "{origin}");
    }
    for origin in [
        "",
        "*",
        "null",
        "https://",
        "ward.example.org",
        "https://a.org/",
        "https://*.a.org",
    ] {
        assert!(check(origin).is_err(), "{origin}");
    }
}

#[test]
fn an_unknown_field_is_refused() {
    let error = toml::from_str::<Config>("root_keys = \"r\"\n[mqtt]\nlisten_adress = \"x\"\n");
    assert!(error.unwrap_err().to_string().contains("listen_adress"));
}
