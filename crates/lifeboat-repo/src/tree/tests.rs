#![expect(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn file(seed: &[u8]) -> FileContent {
    FileContent {
        chunks: vec![BlobId::of(seed)],
        size_bytes: seed.len() as u64,
    }
}

#[test]
fn writes_what_restic_would() {
    let mut writer = TreeWriter::new();
    let subtree = BlobId::of(b"tree");
    writer.add("dump", &Stored::Directory(subtree));
    writer.add("empty", &Stored::File(&FileContent::default()));
    writer.add("toc.dat", &Stored::File(&file(b"abc")));
    let json = String::from_utf8(writer.finish()).unwrap();
    let times = r#""mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z""#;
    let expected = [
        &format!(
            r#"{{"nodes":[{{"name":"dump","type":"dir","mode":2147484096,{times},"uid":0,"gid":0,"content":null,"subtree":"{subtree}"}}"#
        ),
        &format!(
            r#"{{"name":"empty","type":"file","mode":384,{times},"uid":0,"gid":0,"content":[]}}"#
        ),
        &format!(
            r#"{{"name":"toc.dat","type":"file","mode":384,{times},"uid":0,"gid":0,"size":3,"content":["{}"]}}]}}"#,
            BlobId::of(b"abc")
        ),
    ];
    assert_eq!(json, expected.map(String::as_str).join(",") + "\n");
    let tree = Tree::parse(json.as_bytes()).unwrap();
    assert_eq!(tree.find("toc.dat").unwrap().file_content(), file(b"abc"));
    assert_eq!(tree.find("dump").unwrap().subtree, Some(subtree));
    assert_eq!(tree.find("dump").unwrap().kind, NodeKind::Dir);
    assert!(tree.find("empty").unwrap().content.is_empty());
    assert!(Tree::parse(b"{\"nodes\":null}").unwrap().nodes.is_empty());
}

#[test]
fn names_are_quoted_as_go_does() {
    for (name, expected) in [
        ("plain-1_%C3.dat", r#""plain-1_%C3.dat""#),
        ("a\"b\\c", r#""a\\\"b\\\\c""#),
        (
            "\u{7}\u{8}\u{c}\n\r\t\u{b}\u{1}\u{7f}",
            r#""\\a\\b\\f\\n\\r\\t\\v\\x01\\x7f""#,
        ),
        ("<&>", r#""\u003c\u0026\u003e""#),
        ("grüße 漢字 🙂 e\u{301}", "\"grüße 漢字 🙂 e\u{301}\""),
        (
            "\u{200b}\u{2028}\u{e0001}\u{a0}",
            r#""\\u200b\\u2028\\U000e0001\\u00a0""#,
        ),
    ] {
        let mut json = Vec::new();
        write_name(name, &mut json);
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}

#[test]
fn reads_every_escape_of_go() {
    assert_eq!(
        unquote_go(r#"\a\b\f\n\r\t\v\\\'\"\x41\101\u00e9\U0001f642z"#).unwrap(),
        "\x07\x08\x0c\n\r\t\x0b\\'\"AAé🙂z"
    );
    assert_eq!(unquote_go(r"\xff").unwrap(), "\u{fffd}");
    for bad in [
        r"\",
        r"\q",
        r"\x4",
        r"\u12",
        r"\ud800",
        r"\777",
        r"\U00110000",
        r"\xé",
        r"\é",
    ] {
        assert_eq!(unquote_go(bad), None, "{bad}");
    }
}

#[test]
fn a_directory_refuses_what_cannot_be_a_path() {
    let mut root = Directory::default();
    root.insert("dump/toc.dat", file(b"a")).unwrap();
    root.insert("dump/tables/public/users/data.dat", file(b"b"))
        .unwrap();
    assert_eq!(
        root.insert("dump/toc.dat", file(b"c")),
        Err(NameError::Taken("dump/toc.dat".into()))
    );
    assert_eq!(
        root.insert("dump", file(b"c")),
        Err(NameError::Taken("dump".into()))
    );
    assert_eq!(
        root.insert("dump/toc.dat/x", file(b"c")),
        Err(NameError::Taken("dump/toc.dat".into()))
    );
    for bad in ["", "/a", "a//b", "../a", "a/.", "a\0"] {
        assert!(
            matches!(root.insert(bad, file(b"c")), Err(NameError::Invalid(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn slices_become_one_file() {
    let whole = FileContent::concat([file(b"a"), FileContent::default(), file(b"bc")]);
    assert_eq!(
        whole,
        FileContent {
            chunks: vec![BlobId::of(b"a"), BlobId::of(b"bc")],
            size_bytes: 3
        }
    );
    assert_eq!(FileContent::concat([]), FileContent::default());
}

proptest! {
    #[test]
    fn any_name_survives(name in "\\PC{1,20}|[\\x00-\\x7f]{1,20}|.{1,20}") {
        let mut writer = TreeWriter::new();
        writer.add(&name, &Stored::File(&FileContent::default()));
        let tree = Tree::parse(&writer.finish()).unwrap();
        prop_assert_eq!(&tree.nodes[0].name, &name);
    }

    #[test]
    fn parsing_never_panics(json in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Tree::parse(&json);
    }
}
