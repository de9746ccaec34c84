//! One envelope: what sealing costs a device, and what admitting costs the server, on both backends.
//!
//! `cargo bench --bench seal_open [-- --quick]`

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

mod common;

use common::{Figures, Fixture, payload, time};
use vitalseal_crypto::{
    Agreement, Backend, NoSenderKeys, Received, SessionKey, aws_lc, rust_crypto,
};

fn main() {
    let fixture = Fixture::new();
    let mut figures = Figures::of("seal_open");
    for count in [1, 60, 300] {
        let payload = payload(count);
        let mut admitted = Vec::new();
        for (name, backend) in [("rustcrypto", rust_crypto()), ("aws_lc", aws_lc())] {
            let label = |what: &str| format!("{what}_{count}_{name}");
            let us = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
            let session = SessionKey::generate(backend).unwrap();
            let seal = |agreement| fixture.seal_with(1, &payload, agreement, backend);
            figures.add(
                label("seal_es"),
                us(time(|| seal(Agreement::Ephemeral))),
                "µs",
            );
            figures.add(
                label("seal_ss"),
                us(time(|| seal(Agreement::Session(&session)))),
                "µs",
            );
            let es = seal(Agreement::Ephemeral).bytes;
            let ss = seal(Agreement::Session(&session)).bytes;
            let verify = time(|| {
                Received::decode(&es)
                    .unwrap()
                    .verify(&fixture.certificate, backend)
                    .unwrap()
            });
            figures.add(label("verify"), us(verify), "µs");
            let es = time(|| admit(&fixture, &es, backend));
            let ss = time(|| admit(&fixture, &ss, backend));
            figures.add(label("admit_es"), us(es), "µs");
            figures.add(label("admit_ss"), us(ss), "µs");
            admitted.push((es, ss));
        }
        let ratio =
            |pick: fn(&(std::time::Duration, std::time::Duration)) -> std::time::Duration| {
                pick(&admitted[0]).as_secs_f64() / pick(&admitted[1]).as_secs_f64()
            };
        figures.add(
            format!("admit_es_{count}_rustcrypto_over_aws_lc"),
            ratio(|both| both.0),
            "ratio",
        );
        figures.add(
            format!("admit_ss_{count}_rustcrypto_over_aws_lc"),
            ratio(|both| both.1),
            "ratio",
        );
    }
    figures.print_json();
}

/// What the server's CPU does for one message: decode, verify, open, decode the payload, re-wrap.
fn admit(fixture: &Fixture, wire: &[u8], backend: &dyn Backend) -> usize {
    let verified = Received::decode(wire)
        .unwrap()
        .verify(&fixture.certificate, backend)
        .unwrap();
    let opened = verified
        .open(&fixture.ring, &NoSenderKeys, backend)
        .unwrap();
    let readings = vitalseal_vitals::senml::decode(opened.payload()).unwrap();
    let at_rest = opened.rewrap(&fixture.kek, backend).unwrap();
    readings.len() + at_rest.as_bytes().len()
}
