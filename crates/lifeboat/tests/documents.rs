//! The help is what was agreed, and the documents made from the definitions are up to date.

#![expect(clippy::expect_used, reason = "a failed setup is a failed test")]

use std::path::Path;

#[test]
fn help() {
    for (name, help) in lifeboat::reference::helps() {
        insta::assert_snapshot!(format!("help-{name}"), help);
    }
}

#[test]
fn committed_documents_are_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut documents = vec![(
        "configuration.md".to_owned(),
        lifeboat::reference::configuration().into_bytes(),
    )];
    for (name, page) in lifeboat::reference::man_pages().expect("pages render") {
        documents.push((format!("man/{name}"), page));
    }
    for (name, script) in lifeboat::reference::completions() {
        documents.push((format!("completions/{name}"), script));
    }
    for (name, content) in documents {
        let committed = std::fs::read(docs.join(&name)).unwrap_or_default();
        assert!(
            committed == content,
            "docs/{name} is out of date: run `cargo xtask man`, `completions` and `config-reference`"
        );
    }
}
