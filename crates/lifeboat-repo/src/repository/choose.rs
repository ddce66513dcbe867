//! Which snapshot is meant by the beginning of an identity.

use crate::error::RepositoryError;
use crate::id::SnapshotId;

/// The one of `ids` that `prefix` names.
pub(super) fn choose(prefix: &str, ids: &[SnapshotId]) -> Result<SnapshotId, RepositoryError> {
    let wanted = prefix.trim().to_ascii_lowercase();
    let begins = |id: &&SnapshotId| !wanted.is_empty() && id.to_string().starts_with(&wanted);
    let matches: Vec<SnapshotId> = ids.iter().filter(begins).copied().collect();
    match matches.as_slice() {
        [id] => Ok(*id),
        [] => {
            // Something with at least half its characters in place may be what was meant.
            let length = wanted.chars().count();
            let close = |distance| (1..=64).contains(&length) && distance * 2 <= length;
            let spelled = |id: &SnapshotId| (distance(&wanted, &id.to_string()), *id);
            let nearest = ids.iter().map(spelled).min();
            let nearest = nearest.and_then(|(distance, id)| close(distance).then_some(id));
            Err(RepositoryError::UnknownId {
                prefix: prefix.to_owned(),
                nearest,
            })
        }
        _ => Err(RepositoryError::AmbiguousId {
            prefix: prefix.to_owned(),
            matches,
        }),
    }
}

/// How many edits turn `wanted` into some beginning of `id`.
fn distance(wanted: &str, id: &str) -> usize {
    let id: Vec<char> = id.chars().collect();
    let mut row: Vec<usize> = (0..=id.len()).collect();
    // More than a whole identity is no typing error.
    for (i, c) in wanted.chars().take(2 * id.len()).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, d) in id.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.into_iter().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used)]
    use super::*;

    fn ids() -> Vec<SnapshotId> {
        // 2c624232…, 19581e27…, 4a44dc15…, 4fc82b26…
        ["2", "9", "44", "40"]
            .map(|text| SnapshotId::of(text.as_bytes()))
            .to_vec()
    }

    #[test]
    fn chooses_by_prefix() {
        let ids = ids();
        for id in &ids {
            assert_eq!(choose(&id.to_string(), &ids).unwrap(), *id);
            assert_eq!(choose(&id.short().to_uppercase(), &ids).unwrap(), *id);
        }
        let mut twins = ids.clone();
        twins.extend(ids.iter().map(|id| {
            let mut bytes = *id.as_bytes();
            bytes[31] ^= 1;
            SnapshotId::from_bytes(bytes)
        }));
        let error = choose(&ids[0].short(), &twins).unwrap_err();
        assert!(
            matches!(error, RepositoryError::AmbiguousId { matches, .. } if matches.len() == 2)
        );
    }

    #[test]
    fn names_the_nearest() {
        let ids = ids();
        let nearest = |prefix: &str| match choose(prefix, &ids).unwrap_err() {
            RepositoryError::UnknownId { nearest, .. } => nearest,
            other => panic!("{other}"),
        };
        let short = ids[0].short();
        assert_eq!(nearest(&format!("{}x", &short[..7])), Some(ids[0]));
        assert_eq!(
            nearest(&format!("{}{}", &short[..3], &short[4..])),
            Some(ids[0])
        );
        assert_eq!(nearest(""), None);
        assert_eq!(nearest("zzzzzzzz"), None);
        assert_eq!(nearest(&"é".repeat(1000)), None);
        assert!(matches!(
            choose("4a", &[]),
            Err(RepositoryError::UnknownId { nearest: None, .. })
        ));
    }
}
