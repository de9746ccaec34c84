//! Every way to write the profile's CBOR otherwise, and the sentence that says which rule it broke.

use std::collections::HashMap;

use super::super::{AtRest, Received, Rejection, Rule, Signed};

/// The fragments of a wire envelope in hexadecimal, in order. What stands between `<` and `>` is a byte string.
const WIRE: &[(&str, &str)] = &[
    ("tag", "d860"),
    ("message", "84"),
    ("<", ""),
    ("protected", "a4"),
    ("alg", "0103"),
    ("content type", "031870"),
    ("key thumbprint", "045820{32}"),
    ("claims", "0fa5"),
    ("iss", "016b6d6f6e69746f722d303031"),
    ("sub", "027821 70{32 digits}"),
    ("iat", "061a69b00000"),
    ("boot", "3a0001000003"),
    ("sequence", "3a000100010e"),
    ("previous", ""),
    (">", ""),
    ("unprotected", "a2"),
    ("iv", "054c{12}"),
    ("countersignature", "0b83"),
    ("<", ""),
    ("signer", "a2"),
    ("signer alg", "0126"),
    ("x5t", "1822822f5820{32}"),
    (">", ""),
    ("loose", "a0"),
    ("signature", "5840{64}"),
    ("ciphertext", "50{16}"),
    ("recipients", "81"),
    ("recipient", "83"),
    ("agreement", "44a101381e"),
    ("recipient map", "a2"),
    ("kid", "0448{8}"),
    ("key", "20a401022001215820{32}225820{32}"),
    ("nonce", ""),
    ("wrapped", "5828{40}"),
    ("end", ""),
];

/// What stands in [`WIRE`] instead when the message is stored.
const STORED: &str = "agreement = 40; kid = 01240448{8}; key =";

/// What stands there when the sender's key is only named.
const NAMED: &str = "agreement = 44a1013821; recipient map = a3; key = 225820{32}; nonce = 3507";

/// The envelope with some fragments written otherwise; of two changes to one fragment the later holds.
fn message(changes: &[&str]) -> Vec<u8> {
    let changes: HashMap<_, _> = changes
        .iter()
        .flat_map(|some| some.split(';'))
        .filter_map(|change| change.split_once('='))
        .map(|(name, fragment)| (name.trim(), fragment.trim()))
        .collect();
    for name in changes.keys() {
        assert!(
            WIRE.iter().any(|(known, _)| known == name),
            "no fragment {name}"
        );
    }
    let mut out = vec![Vec::new()];
    for (name, fragment) in WIRE {
        match *name {
            "<" => out.push(Vec::new()),
            ">" => {
                let inner = out.pop().unwrap();
                let mut writer = super::super::cbor::Writer::default();
                writer.bytes(&inner);
                out.last_mut().unwrap().extend(writer.into_bytes());
            }
            name => {
                let fragment = changes.get(name).unwrap_or(fragment);
                out.last_mut().unwrap().extend(bytes(fragment));
            }
        }
    }
    out.pop().unwrap()
}

/// Hexadecimal, in which `{n}` stands for n bytes of no meaning, and `{32 digits}` for as many digits.
fn bytes(fragment: &str) -> Vec<u8> {
    let mut hexadecimal = fragment
        .replace(' ', "")
        .replace("{32digits}", &"61".repeat(32));
    for length in [8, 12, 16, 31, 32, 33, 40, 64, 65] {
        hexadecimal = hexadecimal.replace(&format!("{{{length}}}"), &"5a".repeat(length));
    }
    hex::decode(&hexadecimal).unwrap_or_else(|_| panic!("{fragment}"))
}

/// Name | what is written instead | the rule | the sentence.
const HOSTILE: &str = "\
another tag | tag = d861 | shape | not a tagged COSE_Encrypt
no tag | tag = | shape | not a tagged COSE_Encrypt
a tag in a tag | tag = d860d860 | shape | an array has another length or stands elsewhere
a tag outside the tag | tag = d9d9f7d860 | shape | not a tagged COSE_Encrypt
a tag around a value | iv = 05c24c{12} | shape | a byte string was expected
an element too many | message = 85; end = f6 | shape | an array has another length or stands elsewhere
trailing bytes | end = 00 | shape | trailing bytes
trailing bytes in the protected header | previous = 00 | shape | trailing bytes
trailing bytes in the signer | x5t = 1822822f5820{32}00 | shape | trailing bytes
depth | iv = 058181818181818181818181818181818181818181818181818181 | shape | a byte string was expected
truncated | wrapped = 5828{16} | shape | truncated
# One encoding for each value.
an indefinite array | message = 9f; end = ff | shape | an indefinite length
an indefinite map | protected = bf; previous = ff | shape | an indefinite length
an indefinite byte string | ciphertext = 5f50{16}ff | shape | an indefinite length
indefinite text | iss = 017f6161ff | shape | an indefinite length
a reserved length | iv = 055c{12} | shape | a reserved encoding
a long integer | alg = 011803 | shape | a number is not in its shortest form
a long label | alg = 180103 | shape | a number is not in its shortest form
a long counter | boot = 3a000100001b0000000000000003 | shape | a number is not in its shortest form
a long string length | iv = 05580c{12} | shape | a number is not in its shortest form
a long array length | recipients = 9801 | shape | a number is not in its shortest form
a float for a counter | boot = 3a00010000f94200 | shape | an unsigned integer was expected
a negative counter | boot = 3a0001000020 | shape | an unsigned integer was expected
# Labels.
a repeated label | protected = a5; alg = 01030103 | shape | a label is repeated
a repeated claim | claims = 0fa6; boot = 3a00010000033a0001000004 | shape | a label is repeated
a repeated unprotected label | unprotected = a3; iv = 054c{12}054c{12} | shape | a label is repeated
a repeated recipient label | recipient map = a3; kid = 0448{8}0448{8} | shape | a label is repeated
labels in another order | alg = 031870; content type = 0103 | shape | labels are out of order
claims ordered by value | boot = 3a000100010e; sequence = 3a0001000003 | shape | labels are out of order
a label as text | alg = 616103 | shape | an integer was expected
a foreign protected label | protected = a5; claims = 05410f0fa5 | shape | the protected header has a foreign label
crit | protected = a5; alg = 0103028101 | shape | the protected header has a foreign label
a foreign claim | claims = 0fa6; previous = 3a00010003f6 | shape | the claims have a foreign label
a foreign unprotected label | unprotected = a3; iv = 0441aa054c{12} | shape | the unprotected header has a foreign label
a foreign signer label | signer = a3; signer alg = 01260441aa | shape | the countersignature has a foreign label
loose countersignature headers | loose = a10441aa | shape | the countersignature has loose headers
two countersignatures | countersignature = 0b8283 | shape | an array has another length or stands elsewhere
a foreign recipient label | recipient map = a3; kid = 01260448{8} | shape | the recipient has a foreign label
a foreign key label | key = 20a501022001215820{32}225820{32}2340 | shape | a key has a foreign label
no alg | protected = a3; alg = | shape | the protected header lacks a label
no time | claims = 0fa4; iat = | shape | a claim is missing
no iv | unprotected = a1; iv = | shape | the IV or the countersignature is missing
no signer | signer = a1; x5t = | shape | the countersignature lacks a label
no kid | recipient map = a1; kid = | shape | the recipient names no key
# Values.
an over-long device id | iss = 01784161{64} | shape | the issuer is no device id
a device id that climbs a path | iss = 01632e2e2f | shape | the issuer is no device id
a device id in bytes | iss = 014161 | shape | text was expected
a device id that is not UTF-8 | iss = 0161ff | shape | text is not UTF-8
an over-long pseudonym | sub = 0278227061{32 digits} | shape | the subject is no pseudonym
an over-long kid | kid = 045821{33} | shape | a kid has no such length
an empty kid | kid = 0440 | shape | a kid has no such length
boot 2^53 | boot = 3a000100001b0020000000000000 | shape | a counter is 2^53 or more
the largest sequence | sequence = 3a000100011bffffffffffffffff | shape | a counter is 2^53 or more
a time that no calendar has | iat = 061b7fffffffffffffff | shape | the time is out of range
an unknown content type | content type = 03183c | shape | the content type is unknown
an unknown content type by name | content type = 036161 | shape | the content type is unknown
a short thumbprint | key thumbprint = 04581f{31} | shape | a byte string has another length
a long iv | iv = 0550{16} | shape | a byte string has another length
a short x5t | x5t = 1822822f581f{31} | shape | a byte string has another length
a long signature | signature = 5841{65} | shape | a byte string has another length
a chain hash of no length | claims = 0fa6; previous = 3a0001000240 | shape | a byte string has another length
a ciphertext without its tag | ciphertext = 4f000000000000000000000000000000 | shape | the ciphertext is shorter than its tag
a long wrap | wrapped = 5840{64} | shape | a byte string has another length
a length beyond the end | wrapped = 5bffffffffffffffff | shape | truncated
a compressed key | key = 20a401022001215820{32}22f5 | shape | a byte string was expected
another curve | key = 20a401022002215820{32}225820{32} | shape | a key is not an uncompressed P-256 point
# Algorithms.
A128GCM | alg = 0101 | algorithm | an algorithm is not on the allow-list
an algorithm by text | alg = 01674132353647434d | algorithm | an algorithm is named by text
ES384 | signer alg = 013822 | algorithm | an algorithm is not on the allow-list
ES256 by text | signer alg = 01654553323536 | algorithm | an algorithm is named by text
x5t by SHA-1 | x5t = 1822822d5820{32} | algorithm | an algorithm is not on the allow-list
direct key agreement | agreement = 44a1013818 | algorithm | the recipient's algorithm is not allowed
direct use of a key | agreement = 43a10125 | algorithm | the recipient's algorithm is not allowed
a stored recipient | agreement = 40; kid = 0124 0448{8}; key = | algorithm | the recipient's algorithm is not allowed
an agreement by text | agreement = 47a1016445434448 | algorithm | an algorithm is named by text
an agreement with more to it | agreement = 46a201381e0340 | shape | the recipient's protected header has more than an algorithm
an agreement of nothing | agreement = 41a0 | shape | the recipient names no algorithm
# Recipients.
no recipient | recipients = 80 | shape | not exactly one recipient
two recipients | recipients = 82 | shape | not exactly one recipient
a recipient of a recipient | recipient = 84; end = 80 | shape | a recipient has other than three parts
es under a session's header | agreement = 44a1013821 | shape | the recipient's labels do not fit its algorithm
a nonce beside es | recipient map = a3; nonce = 3507 | shape | the recipient's labels do not fit its algorithm
";

/// The same for a message whose sender is only named.
const HOSTILE_NAMED: &str = "\
a short name | key = 22436b6579 | shape | a byte string has another length
a long name | key = 225821{33} | shape | a byte string has another length
named and carried | recipient map = a4; key = 21a401022001215820{32}225820{32}225820{32} | shape | the recipient's labels do not fit its algorithm
no nonce | recipient map = a2; nonce = | shape | the recipient's labels do not fit its algorithm
a nonce of bytes | nonce = 354107 | shape | an unsigned integer was expected
named under es | agreement = 44a101381e | shape | the recipient's labels do not fit its algorithm
";

/// And for a stored one.
const HOSTILE_STORED: &str = "\
another wrap | kid = 01220448{8} | algorithm | an algorithm is not on the allow-list
a wrap by text | kid = 0166413235364b570448{8} | algorithm | an algorithm is named by text
a wire recipient | agreement = 44a101381e | algorithm | not wrapped for a patient
no kid | recipient map = a1; kid = 0124 | shape | the recipient lacks a label
a foreign label | recipient map = a3; nonce = 3507 | shape | the recipient has a foreign label
two recipients | recipients = 82 | shape | not exactly one recipient
trailing bytes | end = 00 | shape | trailing bytes
";

#[test]
fn whatever_is_written_otherwise_is_refused_with_the_rule_that_it_broke() {
    let wire = |bytes: &[u8]| Received::decode(bytes).map(drop);
    let stored = |bytes: &[u8]| AtRest::decode(bytes).map(drop);
    type Decode = fn(&[u8]) -> Result<(), Rejection>;
    for (kind, decode, rows) in [
        ("", wire as Decode, HOSTILE),
        (NAMED, wire, HOSTILE_NAMED),
        (STORED, stored, HOSTILE_STORED),
    ] {
        decode(&message(&[kind])).expect("as it should be written, it is read");
        for row in rows.lines().filter(|line| !line.starts_with('#')) {
            let [name, changes, rule, detail] = row.split(" | ").collect::<Vec<_>>()[..] else {
                panic!("not a row: {row}")
            };
            let refused = decode(&message(&[kind, changes])).expect_err(name);
            assert_eq!(
                (refused.rule.as_str(), refused.detail()),
                (rule, detail),
                "{name}"
            );
        }
    }
}

/// Evidence has no recipients, so nothing of them is read; all before them is read as strictly.
#[test]
fn evidence_is_cut_where_the_signature_ends() {
    let signed = Signed::decode(&message(&[])).unwrap();
    let cut = signed.as_bytes();
    assert_eq!(cut[..2], [0xd0, 0x83]);
    assert!(cut.ends_with(&bytes("50{16}")));
    assert_eq!(Signed::decode(cut).unwrap().as_bytes(), cut);
    for same in [STORED, NAMED, "recipients = 82; end = ff"] {
        assert_eq!(Signed::decode(&message(&[same])).unwrap().as_bytes(), cut);
    }
    let refused = Signed::decode(&[cut, &[0]].concat()).unwrap_err();
    assert_eq!(refused.detail(), "trailing bytes");
    let refused = Signed::decode(&message(&["tag = d1"])).unwrap_err();
    assert_eq!(refused.detail(), "not a tagged COSE_Encrypt0");
    assert!(Received::decode(cut).is_err() && AtRest::decode(cut).is_err());
}

#[test]
fn depth_costs_nothing() {
    for nested in [
        vec![0x81; 200_000],
        vec![0xd8; 200_000],
        vec![0xa1; 200_000],
    ] {
        assert_eq!(Received::decode(&nested).unwrap_err().rule, Rule::Shape);
    }
}
