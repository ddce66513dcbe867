//! Which of the right words was meant by a wrong one.

/// The word of `known` that `word` is probably a slip of, if one is close enough.
///
/// Close: at most a third of its letters wrong (swapped neighbours count once), case and `-`/`_` aside.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The full path of the key that `path` was probably meant to be: the same key in another section, or a
/// slip in the section's name or the key's.
pub(super) fn nearest_key(path: &str, known: &[String]) -> Option<String> {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let last = |known: &str| known.rsplit('.').next().unwrap_or(known).to_owned();
    let section_of = |known: &str| {
        known
            .rsplit_once('.')
            .map_or(String::new(), |(s, _)| s.to_owned())
    };

    let siblings: Vec<String> = known
        .iter()
        .filter(|known| section_of(known) == section)
        .map(|known| last(known))
        .collect();
    // A section's own name is a sibling of the top level's keys.
    let sections: Vec<String> = known
        .iter()
        .filter_map(|known| {
            let rest = if section.is_empty() {
                known.as_str()
            } else {
                known.strip_prefix(section)?.strip_prefix('.')?
            };
            rest.split_once('.').map(|(first, _)| first.to_owned())
        })
        .collect();
    let full = |name: &str| {
        if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        }
    };
    if let Some(found) = nearest(key, siblings.iter().chain(&sections).map(String::as_str)) {
        return Some(full(found));
    }
    known
        .iter()
        .find(|known| last(known) == key)
        .or_else(|| {
            known
                .iter()
                .find(|known| nearest(key, [last(known).as_str()]).is_some())
        })
        .cloned()
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (index, row) in rows.iter_mut().enumerate() {
        row[0] = index;
    }
    for (index, cell) in rows[0].iter_mut().enumerate() {
        *cell = index;
    }
    for l in 1..=left.len() {
        for r in 1..=right.len() {
            let change = usize::from(left[l - 1] != right[r - 1]);
            let mut best = (rows[l - 1][r] + 1)
                .min(rows[l][r - 1] + 1)
                .min(rows[l - 1][r - 1] + change);
            if l > 1 && r > 1 && left[l - 1] == right[r - 2] && left[l - 2] == right[r - 1] {
                best = best.min(rows[l - 2][r - 2] + 1);
            }
            rows[l][r] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["memalerts", "billing", "analytics"];
        for (word, expected) in [
            ("memalrets", Some("memalerts")),
            ("Billing", Some("billing")),
            ("analytic", Some("analytics")),
            ("inventory", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn keys_are_found_across_sections() {
        let known: Vec<String> = [
            "database_url",
            "objectives.rpo",
            "objectives.rto",
            "verify.max_age",
            "drill.check.sql",
        ]
        .map(str::to_owned)
        .into();
        for (path, expected) in [
            ("objectives.rpoo", Some("objectives.rpo")),
            ("objective", Some("objectives")),
            ("max_age", Some("verify.max_age")),
            ("max-age", Some("verify.max_age")),
            ("databse_url", Some("database_url")),
            ("drill.chekc", Some("drill.check")),
            ("drill.check.sq", Some("drill.check.sql")),
            ("colour", None),
        ] {
            assert_eq!(nearest_key(path, &known).as_deref(), expected, "{path}");
        }
    }
}
