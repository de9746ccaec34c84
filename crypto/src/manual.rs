//! One message, byte by byte: for whoever writes firmware with another COSE library.
//!
//! This is the first of the published vectors in `tests/vectors/envelope.json`, made and checked by independent
//! libraries; the examples below are run against that file.
//!
//! # As a device publishes it
//!
//! ```
//! # let annotated = r##"
//! d860                                                        # tag 96, COSE_Encrypt (RFC 9052 §5.1)
//! 84                                                          # [ four things
//!   586f                                                      # protected header: bstr of 111
//!     a4                                                      # { four labels
//!       0103                                                  # 1 alg: 3, A256GCM
//!       031870                                                # 3 content type: 112, SenML in CBOR
//!       045820                                                # 4 kid: bstr of 32, thumbprint of the content key
//!         b2fbfbdcf832fa0a2dd5305070d10a2bd158da5928a9ffbe    # (the key commitment, RFC 9679)
//!         dd802396251fc257
//!       0fa5                                                  # 15 CWT claims: { five (RFC 9597)
//!         016b6d6f6e69746f722d303031                          # 1 iss: "monitor-001"
//!         027821706434653961623330346434383936663965313766    # 2 sub: "pd4e9ab304d4896f9e17fd8f0816496da"
//!         643866303831363439366461
//!         061a69570a80                                        # 6 iat: 1767312000 s
//!         3a0001000007                                        # -65537: boot counter 7
//!         3a000100011864                                      # -65538: sequence 100
//!   a2                                                        # unprotected header: { two
//!     054c979464a52b2b803afb03c533                            # 5 IV: bstr of 12
//!     0b83                                                    # 11 countersignature (RFC 9338): [ three
//!       5829                                                  # its protected header: bstr of 41
//!         a201261822822f582070d5520c379198e0b8c0fc6ed6db26    # {1: -7 ES256, 34 x5t: [-16, certificate]}
//!         64e4cc00d5b5e360b54276a171487f6d88
//!       a0                                                    # its unprotected header: {}
//!       5840547492c75da45907468f61794dcecb6a699941d09860      # signature r || s: bstr of 64
//!       1777c0e606a168b7a2eba2c4495bea6a9df940c73550f98b
//!       b79a8b19ea97d084727a1578c9781b1f68d0
//!   5829b5451bd9c8d677d5f192e855f858fe7d890401ffc982          # ciphertext and 16-byte tag: bstr of 41
//!   ca3c22d24199a5467b39350835fde44065a34d
//!   81                                                        # recipients: [ one
//!     83                                                      # [ three
//!       44a101381e                                            # protected {1: -31}, ECDH-ES+A256KW
//!       a2                                                    # unprotected: { two
//!         044806a68a02f0e161af                                # 4 kid: the server's envelope key
//!         20a4                                                # -1 ephemeral key: { four
//!           0102                                              # 1 kty: 2, EC2
//!           2001                                              # -1 crv: 1, P-256
//!           215820cb64031a87142b2ccf41eea5d5999ff0d237948cad  # -2 x
//!           1b552652d49d1321b19032
//!           2258206e0ce5dc4629002d1981029949908a35e440fed055  # -3 y
//!           ae4db102a0e9f7ee9813b8
//!       582869769dc40819c87fee283f8fd10c37044828eeaeb309      # wrapped content key: bstr of 40
//!       6ea42bf7b1519cd1f3bccfa3a1e7c02495ce
//! # "##;
//! # let vectors: serde_json::Value =
//! #     serde_json::from_str(include_str!("../tests/vectors/envelope.json")).unwrap();
//! # let bytes: String = annotated
//! #     .lines()
//! #     .flat_map(|line| line.split('#').next())
//! #     .flat_map(|hex| hex.chars().filter(|c| !c.is_whitespace()))
//! #     .collect();
//! # assert_eq!(bytes, vectors["valid"][0]["wire"]);
//! ```
//!
//! Three byte strings are made from it and never sent (RFC 9052 §5.3, RFC 9053 §5.2, RFC 9338 §3.3):
//!
//! ```text
//! AAD of the ciphertext  ["Encrypt", protected header, h'']
//! info of HKDF-SHA-256   [-5, [null, nonce / null, null], [null, null, null], [256, the recipient's protected header]]
//! signed by the device   ["CounterSignature", protected header, its own protected header, h'', ciphertext]
//! ```
//!
//! Three mistakes cost the most time. The first number of the HKDF info is -5 (A256KW, what the derived key is for), and
//! not the content algorithm's. An ephemeral key serves one message. And every header and map is in the one deterministic
//! encoding (RFC 8949 §4.2.1), with shortest lengths and labels sorted by their encoded bytes: anything else is refused.
//!
//! A session (`ss`) writes `{1: -34}` instead and, beside `kid`, the sender's key in full under -2 or its RFC 9679
//! thumbprint under -3, and a nonce under -22, which is also the nonce in the HKDF info. A key may be named under -3 once
//! a message that carried it under -2 was acknowledged. Points are uncompressed: x and y are 32 bytes each, and the
//! compressed form of RFC 9053 §7.1.1, a true or false for y, is refused.
//!
//! # As it is stored
//!
//! The same first 286 bytes, and another recipient: the content key wrapped under the patient's KEK. The device's
//! signature covers none of what was replaced.
//!
//! ```
//! # let annotated = r##"
//!   81                                                        # recipients: [ one
//!     83                                                      # [ three
//!       40                                                    # protected: empty, A256KW authenticates no header
//!       a2                                                    # unprotected: { two
//!         0124                                                # 1 alg: -5, A256KW
//!         0450feb9dc4b1ebe55e5b8f9b680eff76c81                # 4 kid: the patient's KEK
//!       58282667dfa21274ee177e6ed036e699cfefc6edfa488545      # wrapped content key: bstr of 40
//!       ed1df31971a6c5b56e9697a1670b86c84163
//! # "##;
//! # let vectors: serde_json::Value =
//! #     serde_json::from_str(include_str!("../tests/vectors/envelope.json")).unwrap();
//! # let bytes: String = annotated
//! #     .lines()
//! #     .flat_map(|line| line.split('#').next())
//! #     .flat_map(|hex| hex.chars().filter(|c| !c.is_whitespace()))
//! #     .collect();
//! # let vector = &vectors["valid"][0];
//! # let wire = vector["wire"].as_str().unwrap();
//! # assert_eq!(format!("{}{bytes}", &wire[..2 * 286]), vector["at_rest"]);
//! ```
//!
//! # As evidence
//!
//! A [`CloneProof`](crate::CloneProof) keeps the two messages as `COSE_Encrypt0` (tag 16) with no recipient at all: the
//! signature holds, and there is no way to the readings.
