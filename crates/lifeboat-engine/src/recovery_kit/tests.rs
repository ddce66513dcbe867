#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use secrecy::ExposeSecret;

use super::*;

fn kit(location: &str) -> Kit {
    Kit {
        written: "2026-11-22T23:10:05Z".parse().unwrap(),
        lifeboat_version: "0.1.0".into(),
        hostname: "db1.example".into(),
        location: RepositoryLocation::parse(location).unwrap(),
        repository_id: "8f".repeat(32),
        key: "1a2b3c4d".into(),
        passphrase: "7k3m9-q0vtx-2zc8h-w5n1e-r6j4s-a9b8c".into(),
        region: None,
        path_style: None,
        ssh_command: Vec::new(),
        credentials: Vec::new(),
        databases: vec![KitDatabase {
            name: "memalerts".into(),
            server_version: Some("15.8 (Debian 15.8-1)".into()),
        }],
    }
}

/// Everything that the text tells is what the kit held.
fn comes_back(kit: &Kit) -> ReadKit {
    let found = read(&kit.text()).unwrap();
    assert_eq!(
        format!("{:?}", without_secrets(&found.kit)),
        format!("{:?}", without_secrets(kit))
    );
    assert_eq!(
        found.kit.passphrase.expose_secret(),
        kit.passphrase.expose_secret()
    );
    assert_eq!(found.kit.text(), kit.text());
    found
}

fn without_secrets(kit: &Kit) -> Kit {
    Kit {
        passphrase: SecretString::default(),
        ..kit.clone()
    }
}

#[test]
fn a_kit_is_read_back_from_its_text() {
    let local = comes_back(&kit("/var/backups/it's here"));
    assert!(
        local
            .without
            .iter()
            .any(|line| line == r"export RESTIC_REPOSITORY='/var/backups/it'\''s here'")
    );

    let mut s3 = kit("s3:https://s3.example.org:9000/bucket/prefix");
    s3.region = Some("eu-central-1".into());
    s3.path_style = Some(false);
    s3.credentials = vec![
        Credential {
            name: "AWS_ACCESS_KEY_ID".into(),
            value: Some("AKIA".into()),
        },
        Credential {
            name: "AWS_SECRET_ACCESS_KEY".into(),
            value: None,
        },
    ];
    s3.databases.push(KitDatabase {
        name: "it's, a: name".into(),
        server_version: None,
    });
    let found = comes_back(&s3);
    assert_eq!(found.kit.major(), Some(15));
    assert!(
        found
            .without
            .iter()
            .any(|line| line.contains("-o s3.bucket-lookup=dns"))
    );
    assert!(
        found
            .without
            .iter()
            .any(|line| line.contains(r"--path '/it'\''s, a: name'"))
    );

    let mut sftp = kit("sftp://backup@nas:2222//srv/repo");
    sftp.ssh_command = [
        "ssh",
        "-o",
        "ProxyCommand=nc -x proxy %h %p",
        "-F",
        "/etc/ssh_config",
    ]
    .map(str::to_owned)
    .to_vec();
    let found = comes_back(&sftp);
    let command = r"-o sftp.command='ssh -o '\''ProxyCommand=nc -x proxy %h %p'\'' -F /etc/ssh_config -p 2222 backup@nas -s sftp'";
    assert!(
        found.without.iter().any(|line| line.contains(command)),
        "{:#?}",
        found.without
    );
}

#[test]
fn words_of_a_shell_come_apart_again() {
    let words = ["ssh", "", "two words", "it's", r"back\slash", "'"].map(str::to_owned);
    assert_eq!(super::page::unquoted(&super::page::words(&words)), words);
}

#[test]
fn the_passphrase_stands_on_the_page_once() {
    let kit = kit("/srv/repo");
    let passphrase = kit.passphrase.expose_secret();
    for page in [kit.text(), kit.html()] {
        assert_eq!(page.matches(passphrase).count(), 1);
    }
}

#[test]
fn a_line_that_is_missing_or_wrong_is_named() {
    let text = kit("/srv/repo").text();
    assert_eq!(read("").unwrap_err(), KitError::NotAKit);
    assert_eq!(read("# Notes\n").unwrap_err(), KitError::NotAKit);
    for label in [
        "Passphrase",
        "Repository",
        "Repository ID",
        "Written",
        "Database",
        "Key",
        "Host",
        "Lifeboat",
    ] {
        let gone: String = text
            .lines()
            .filter(|line| !line.starts_with(&format!("  {label}:")))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(read(&gone).unwrap_err(), KitError::Missing(label));
    }
    let wrong = text.replace("2026-11-22 23:10:05Z", "yesterday");
    assert!(matches!(
        read(&wrong),
        Err(KitError::Unusable {
            label: "Written",
            ..
        })
    ));
    let wrong = text.replacen(" /srv/repo", " rest:http://x/", 1);
    assert!(matches!(
        read(&wrong),
        Err(KitError::Unusable {
            label: "Repository",
            ..
        })
    ));
    let cut = text.split(page::WITHOUT).next().unwrap();
    assert_eq!(read(cut).unwrap_err(), KitError::NoCommands);
    // As editors and mail programs leave it.
    let mangled = format!("\u{feff}{}", text.replace('\n', "\r\n\r\n"));
    assert_eq!(read(&mangled).unwrap().kit.text(), text);
}

#[test]
fn folders_and_targets_differ_where_names_do() {
    let mut kit = kit("/srv/repo");
    kit.databases = ["a b", "a_b", "postgres"]
        .map(|name| KitDatabase {
            name: name.into(),
            server_version: None,
        })
        .to_vec();
    let folders: Vec<String> = kit
        .databases
        .iter()
        .map(|one| kit.folder(&one.name))
        .collect();
    assert_eq!(folders, ["backup-a_b", "backup-a_b-2", "backup-postgres"]);
    assert_eq!(kit.databases[2].target(), "postgres_restored");
}

#[test]
fn nothing_on_the_page_comes_from_elsewhere_or_is_markup() {
    let mut kit = kit("/srv/<b>\"&repo");
    kit.databases[0].name = "<script>alert(1)</script>".into();
    let html = kit.html();
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    for word in ["http://", "https://", "src=", "url(", "@import", "<link"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_receipt_is_kept_and_is_of_its_kit_only() {
    let folder = tempfile::tempdir().unwrap();
    let kit = kit("/srv/repo");
    assert_eq!(
        Receipt::read(folder.path(), &kit.repository_id).unwrap(),
        None
    );
    let receipt = Receipt::of(&kit, &folder.path().join("kit.txt"));
    receipt.write(folder.path()).unwrap();
    receipt.write(folder.path()).unwrap();
    let found = Receipt::read(folder.path(), &kit.repository_id)
        .unwrap()
        .unwrap();
    assert_eq!(found, receipt);
    assert!(found.is_of(&read(&kit.text()).unwrap().kit));
    let mut later = kit.clone();
    later.written = "2027-01-01T00:00:00Z".parse().unwrap();
    assert!(!found.is_of(&later));
}
