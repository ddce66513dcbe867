//! The little X.509 that rustls does not hand out: the hash that channel binding needs, the subject's
//! common name, and the public key of certificates too old for webpki.
//!
//! Structure: RFC 5280, section 4.1. Everything read here comes from the other side of the wire, so
//! each length is checked, and anything odd yields `None`.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// One DER element: its tag, its content, and the whole of it.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;

/// Takes one element off the front.
fn element<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
    let bytes: &'a [u8] = rest;
    let (&tag, after) = bytes.split_first()?;
    let (&first, after) = after.split_first()?;
    let (length, after) = if first < 0x80 {
        (usize::from(first), after)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = after.split_at_checked(count)?;
        (
            digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
            after,
        )
    };
    let (content, after) = after.split_at_checked(length)?;
    let whole = &bytes[..bytes.len() - after.len()];
    *rest = after;
    Some(Element {
        tag,
        content,
        whole,
    })
}

fn expect<'a>(rest: &mut &'a [u8], tag: u8) -> Option<Element<'a>> {
    element(rest).filter(|element| element.tag == tag)
}

/// Fields of a certificate that are of use here.
pub(crate) struct Fields<'a> {
    not_before: Element<'a>,
    not_after: Element<'a>,
    subject: &'a [u8],
    /// The SubjectPublicKeyInfo, whole.
    pub public_key: &'a [u8],
    /// Version 1 certificates have no extensions; webpki refuses them, OpenSSL does not.
    pub is_version_1: bool,
    has_alternative_names: bool,
    signature_algorithm: &'a [u8],
}

pub(crate) fn parse(der: &[u8]) -> Option<Fields<'_>> {
    let mut outer = der;
    let mut certificate = expect(&mut outer, SEQUENCE)?.content;
    let mut tbs = expect(&mut certificate, SEQUENCE)?.content;
    let signature_algorithm = expect(&mut certificate, SEQUENCE)?.content;
    let is_version_1 = tbs.first() != Some(&0xa0);
    if !is_version_1 {
        element(&mut tbs)?;
    }
    element(&mut tbs)?; // serialNumber
    expect(&mut tbs, SEQUENCE)?; // signature
    expect(&mut tbs, SEQUENCE)?; // issuer
    let mut validity = expect(&mut tbs, SEQUENCE)?.content;
    let not_before = element(&mut validity)?;
    let not_after = element(&mut validity)?;
    let subject = expect(&mut tbs, SEQUENCE)?.content;
    let public_key = expect(&mut tbs, SEQUENCE)?.whole;
    Some(Fields {
        not_before,
        not_after,
        subject,
        public_key,
        is_version_1,
        has_alternative_names: alternative_names(tbs),
        signature_algorithm,
    })
}

/// Whether the extensions hold a subjectAltName (OID 2.5.29.17).
fn alternative_names(mut rest: &[u8]) -> bool {
    while let Some(field) = element(&mut rest) {
        if field.tag != 0xa3 {
            continue;
        }
        let mut wrapper = field.content;
        let Some(list) = expect(&mut wrapper, SEQUENCE) else {
            return false;
        };
        let mut extensions = list.content;
        while let Some(extension) = expect(&mut extensions, SEQUENCE) {
            let mut parts = extension.content;
            if expect(&mut parts, OID).is_some_and(|oid| oid.content == [0x55, 0x1d, 0x11]) {
                return true;
            }
        }
    }
    false
}

impl Fields<'_> {
    /// The subject's common name, for certificates without alternative names: libpq falls back to it
    /// (`pq_verify_peer_name_matches_certificate`), as self-made certificates often have no other.
    pub fn common_name(&self) -> Option<String> {
        if self.has_alternative_names {
            return None;
        }
        let mut sets = self.subject;
        let mut name = None;
        while let Some(set) = expect(&mut sets, SET) {
            let mut pairs = set.content;
            while let Some(pair) = expect(&mut pairs, SEQUENCE) {
                let mut parts = pair.content;
                let Some(oid) = expect(&mut parts, OID) else {
                    continue;
                };
                if oid.content == [0x55, 0x04, 0x03] {
                    let value = element(&mut parts)?;
                    name = Some(std::str::from_utf8(value.content).ok()?.to_owned());
                }
            }
        }
        // An embedded NUL is an old trick to look like another name.
        name.filter(|name| !name.contains('\0'))
    }

    /// Whether `now`, in seconds since 1970, lies within the certificate's validity.
    pub fn valid_at(&self, now: u64) -> bool {
        let at = |element: &Element<'_>| timestamp(element.tag, element.content);
        let (Some(from), Some(to)) = (at(&self.not_before), at(&self.not_after)) else {
            return false;
        };
        i64::try_from(now).is_ok_and(|now| from <= now && now <= to)
    }
}

/// UTCTime or GeneralizedTime, both in UTC (RFC 5280, section 4.1.2.5), as seconds since 1970.
fn timestamp(tag: u8, content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let date = jiff::civil::Date::new(year, part(0)?, part(2)?).ok()?;
    let time = jiff::civil::Time::new(part(4)?, part(6)?, part(8)?, 0).ok()?;
    let instant = date
        .to_datetime(time)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?;
    Some(instant.timestamp().as_second())
}

/// The data of `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash by the hash of
/// its own signature, where MD5 and SHA-1 are replaced by SHA-256. `None` for signatures without a
/// hash of their own, such as Ed25519.
pub(crate) fn end_point_hash(der: &[u8]) -> Option<Vec<u8>> {
    let mut algorithm = parse(der)?.signature_algorithm;
    let oid = expect(&mut algorithm, OID)?.content;
    let bits = match oid {
        // RSA (1.2.840.113549.1.1.x)
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, which] => match which {
            4 | 5 | 11 => 256,
            12 => 384,
            13 => 512,
            10 => pss_hash_bits(algorithm)?,
            _ => return None,
        },
        // ECDSA with SHA-1 (1.2.840.10045.4.1), and with SHA-2 (1.2.840.10045.4.3.x)
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => 256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, which] => match which {
            2 => 256,
            3 => 384,
            4 => 512,
            _ => return None,
        },
        _ => return None,
    };
    Some(match bits {
        256 => Sha256::digest(der).to_vec(),
        384 => Sha384::digest(der).to_vec(),
        _ => Sha512::digest(der).to_vec(),
    })
}

/// The hash inside RSASSA-PSS parameters (RFC 4055, section 3.1); absent means SHA-1.
fn pss_hash_bits(mut parameters: &[u8]) -> Option<u16> {
    let mut fields = expect(&mut parameters, SEQUENCE)?.content;
    let Some(hash) = element(&mut fields).filter(|field| field.tag == 0xa0) else {
        return Some(256);
    };
    let mut algorithm = hash.content;
    let mut inside = expect(&mut algorithm, SEQUENCE)?.content;
    match expect(&mut inside, OID)?.content {
        // SHA-2 (2.16.840.1.101.3.4.2.x)
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, which] => match which {
            1 => Some(256),
            2 => Some(384),
            3 => Some(512),
            _ => None,
        },
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(256),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{end_point_hash, parse, timestamp};

    #[test]
    fn times_of_both_kinds_are_read() {
        assert_eq!(timestamp(0x17, b"700101000001Z"), Some(1));
        assert_eq!(timestamp(0x17, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(timestamp(0x18, b"20500101000000Z"), Some(2_524_608_000));
        for bad in [
            &b"7001010000Z"[..],
            b"701301000000Z",
            b"\xc3\xa9",
            b"",
            b"70010100000\xc3\xa9Z",
        ] {
            assert_eq!(timestamp(0x17, bad), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes).and_then(|fields| fields.common_name());
            let _ = end_point_hash(&bytes);
            let mut nested = vec![0x30, 0x82, 1, 0, 0x30, 0x81, 200];
            nested.extend_from_slice(&bytes);
            nested.resize(400, 0);
            let _ = parse(&nested).map(|fields| (fields.common_name(), fields.valid_at(0)));
            let _ = end_point_hash(&nested);
        }
    }
}
