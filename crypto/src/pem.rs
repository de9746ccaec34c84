//! PEM (RFC 7468), as much of it as keys and certificates need. Decoded blocks are wiped on drop.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The first block of this label; `None` when there is none or it is damaged.
pub(crate) fn first(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    blocks(text, label)?.into_iter().next()
}

/// Every block of this label; `None` when one is damaged.
pub(crate) fn blocks(text: &str, label: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(&begin) {
        let (body, after) = after.split_once(&end)?;
        let mut compact = Zeroizing::new(String::with_capacity(body.len()));
        compact.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
        blocks.push(Zeroizing::new(STANDARD.decode(compact.as_bytes()).ok()?));
        rest = after;
    }
    Some(blocks)
}

/// One block of public bytes, in lines of 64.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_others_and_damage_is_seen() {
        let bytes = [7; 100];
        let text = format!("# note\r\n{}{}", encode("A", &[1]), encode("B", &bytes));
        assert_eq!(first(&text, "B").unwrap().as_slice(), bytes);
        assert!(first(&text, "C").is_none());
        assert_eq!(blocks(&text.repeat(3), "A").unwrap().len(), 3);
        assert!(text.lines().all(|line| line.trim_end().len() <= 64));
        assert!(blocks(&text.replace("-----END B-----", ""), "B").is_none());
        assert!(blocks(&text.replace("BwcH", "B*cH"), "B").is_none());
    }
}
