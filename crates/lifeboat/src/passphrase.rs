//! A passphrase that nobody has to invent.

use crate::failure::Failure;

/// Crockford's base 32: no letter that looks like a digit, none that reads like another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const GROUPS: usize = 6;
const GROUP: usize = 5;

/// Six groups of five letters and digits, 150 random bits: `7k3m9-…`. Short enough to be typed from paper.
pub fn generate() -> Result<String, Failure> {
    let mut random = [0; GROUPS * GROUP];
    getrandom::fill(&mut random).map_err(Failure::bug)?;
    let mut text = String::with_capacity(GROUPS * (GROUP + 1));
    for (index, byte) in random.into_iter().enumerate() {
        if index > 0 && index.is_multiple_of(GROUP) {
            text.push('-');
        }
        // 256 is a multiple of 32, so every letter is as likely as any other.
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn passphrases_are_readable_and_differ() {
        let passphrase = generate().unwrap();
        assert_eq!(passphrase.len(), GROUPS * GROUP + GROUPS - 1);
        assert!(passphrase.split('-').all(|group| group.len() == GROUP));
        assert!(
            passphrase
                .bytes()
                .all(|byte| byte == b'-' || ALPHABET.contains(&byte))
        );
        assert_ne!(passphrase, generate().unwrap());
    }
}
