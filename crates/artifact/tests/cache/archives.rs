//! Archives, good ones and malicious ones.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use modelway_artifact::Config;
use tar::{Builder, EntryType, Header};

use super::{config, fetch, folder, names, partial, server::Server, text};

/// Writes a `.tgz` with these files.
pub(crate) fn pack(archive: &Path, files: &[(&str, &str)]) {
    let mut builder =
        Builder::new(GzEncoder::new(File::create(archive).expect("it can be written"), Compression::fast()));
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).expect("it can be packed");
    }
    builder.into_inner().expect("it ends").finish().expect("it ends");
}

/// A `.tar` with one entry whose header says exactly this.
fn raw(name: &str, kind: EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().expect("it is GNU's");
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

async fn refusal(config: &Config, name: &str, archive: Vec<u8>) -> (&'static str, String) {
    let server = Server::start().await;
    server.put(name, archive, "1");
    let error = fetch(config, &server.url(name)).await.expect_err("it is refused");
    assert!(
        partial(config).is_empty() && names(&config.dir.join("sha256")).is_empty(),
        "rubbish is left after {error}"
    );
    assert!(!error.may_pass(), "{error}");
    (error.code(), error.to_string())
}

#[tokio::test]
async fn an_entry_that_leaves_its_folder_is_refused_by_name() {
    let folder = folder();
    let config = config(&folder);
    for (name, kind, link) in [
        ("../evil", EntryType::Regular, ""),
        ("a/../../evil", EntryType::Regular, ""),
        ("/tmp/evil", EntryType::Regular, ""),
        ("evil", EntryType::Symlink, "/etc/passwd"),
        ("evil", EntryType::Symlink, "../../../etc/passwd"),
        ("evil", EntryType::Link, "/etc/passwd"),
        ("evil", EntryType::Link, "nowhere"),
        ("evil", EntryType::Symlink, "evil"),
        ("evil", EntryType::Char, ""),
        ("evil", EntryType::Fifo, ""),
    ] {
        let (code, said) = refusal(&config, "/a.tar", raw(name, kind, link, b"")).await;
        assert_eq!(code, "artifact_unsafe", "{name} {kind:?} {link}");
        assert!(said.contains(name), "{said}");
    }
    assert!(!folder.path().join("evil").exists() && !Path::new("/tmp/evil").exists());
}

#[tokio::test]
async fn links_inside_an_archive_become_the_files_that_they_mean() {
    let (folder, server) = (folder(), Server::start().await);
    let mut tar = raw("v1/model.onnx", EntryType::Regular, "", b"one");
    tar.truncate(1024);
    let mut link = raw("v2/model.onnx", EntryType::Symlink, "../v1/model.onnx", b"");
    link.truncate(512);
    let mut hard = raw("v3/model.onnx", EntryType::Link, "v2/model.onnx", b"");
    tar.append(&mut link);
    tar.append(&mut hard);
    server.put("/a.tar", tar, "1");
    let fetched = fetch(&config(&folder), &server.url("/a.tar")).await.expect("it is harmless");
    for version in ["v1", "v2", "v3"] {
        let path = fetched.path.join(version).join("model.onnx");
        assert_eq!(text(&path), "one");
        assert!(path.symlink_metadata().expect("it is there").is_file());
    }
}

/// A `.tar` of these entries.
fn joined(entries: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        // Without the two empty blocks that end an archive.
        tar.extend(&entry[..entry.len() - 1024]);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[tokio::test]
async fn a_chain_of_very_many_links_is_followed_in_a_moment() {
    const LINKS: usize = 20_000;
    let (folder, server) = (folder(), Server::start().await);
    // Each means the next one, so that the first pass over them finds nothing but the last.
    let links = (0..LINKS).map(|at| {
        let next = if at + 1 == LINKS { "model.onnx".to_owned() } else { format!("{}", at + 1) };
        raw(&at.to_string(), EntryType::Symlink, &next, b"")
    });
    let file = std::iter::once(raw("model.onnx", EntryType::Regular, "", b"one"));
    server.put("/a.tar", joined(links.chain(file)), "1");
    let began = Instant::now();
    let fetched = fetch(&config(&folder), &server.url("/a.tar")).await.expect("it is harmless");
    assert_eq!(text(&fetched.path.join("0")), "one");
    // One pass over all of them for each takes many minutes.
    assert!(began.elapsed() < Duration::from_secs(100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn links_in_a_circle_and_links_of_one_name_are_refused() {
    let folder = folder();
    let config = config(&folder);
    let link = |name: &str, target: &str| raw(name, EntryType::Symlink, target, b"");
    for links in [vec![link("a", "b"), link("b", "c"), link("c", "a")], vec![link("a", "b"), link("a", "b")]] {
        let (code, said) = refusal(&config, "/a.tar", joined(links.into_iter())).await;
        assert_eq!(code, "artifact_unsafe", "{said}");
    }
}

#[tokio::test]
async fn a_sparse_file_takes_no_more_of_the_disk_than_it_holds() {
    let (folder, server) = (folder(), Server::start().await);
    let sparse = folder.path().join("model.onnx");
    let mut file = File::create(&sparse).expect("it can be written");
    file.write_all(b"weights").expect("it can be written");
    file.set_len(64 << 20).expect("it can be longer");
    let archive = folder.path().join("a.tar");
    let mut pack = Command::new("tar");
    pack.args(["--sparse", "-cf"]).arg(&archive).arg("-C").arg(folder.path()).arg("model.onnx");
    assert!(pack.status().expect("tar runs").success());
    let bytes = std::fs::read(&archive).expect("it is there");
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    server.put("/a.tar", bytes, "1");
    let fetched = fetch(&config(&folder), &server.url("/a.tar")).await.expect("it fits");
    let file = fetched.path.join("model.onnx").metadata().or_else(|_| fetched.path.metadata()).expect("it is there");
    assert_eq!(file.len(), 64 << 20);
    assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
}

#[tokio::test]
async fn archives_that_grow_without_end_are_refused() {
    let folder = folder();
    let config = Config { limit_bytes: 1 << 20, max_files: 10, ..config(&folder) };
    let zeros = vec![0; 8 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&raw("zeros", EntryType::Regular, "", &zeros)).expect("it can be packed");
    let (code, said) = refusal(&config, "/a.tgz", gzip.finish().expect("it ends")).await;
    assert_eq!(code, "artifact_too_large", "{said}");

    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&raw("x", EntryType::XHeader, "", &zeros)).expect("it can be packed");
    let (code, said) = refusal(&config, "/a.tgz", gzip.finish().expect("it ends")).await;
    assert_eq!(code, "artifact_corrupt", "{said}");
    assert!(said.contains("a header is too large"), "{said}");

    let many = folder.path().join("many.tgz");
    let files: Vec<_> = (0..11).map(|at| (format!("f{at}"), "x")).collect();
    pack(&many, &files.iter().map(|(name, content)| (name.as_str(), *content)).collect::<Vec<_>>());
    let (code, said) = refusal(&config, "/a.tgz", std::fs::read(&many).expect("it is there")).await;
    assert_eq!(code, "artifact_too_large", "{said}");
}

#[tokio::test]
async fn a_damaged_archive_is_said_to_be_one() {
    let folder = folder();
    let config = config(&folder);
    let good = folder.path().join("good.tgz");
    pack(&good, &[("model.onnx", &"x".repeat(10_000))]);
    let mut cut = std::fs::read(&good).expect("it is there");
    cut.truncate(cut.len() / 2);
    for (name, bytes) in [("/a.tgz", cut), ("/a.zip", b"no zip".to_vec()), ("/a.tar.gz", b"no gzip".to_vec())] {
        let (code, said) = refusal(&config, name, bytes).await;
        assert_eq!(code, "artifact_corrupt", "{said}");
    }
    let (code, said) = {
        let twice = folder.path().join("twice.tgz");
        pack(&twice, &[("a", "1"), ("a", "2")]);
        refusal(&config, "/a.tgz", std::fs::read(&twice).expect("it is there")).await
    };
    assert_eq!(code, "artifact_unsafe", "{said}");
}

#[tokio::test]
async fn a_zip_is_unpacked_and_checked_like_the_rest() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    let zip = |files: &[(&str, &str)]| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("it can be packed");
            writer.write_all(content.as_bytes()).expect("it can be packed");
        }
        writer.finish().expect("it ends").into_inner()
    };
    let (code, said) = refusal(&config, "/a.zip", zip(&[("../evil", "x")])).await;
    assert_eq!(code, "artifact_unsafe", "{said}");
    server.put("/iris.zip", zip(&[("1/model.onnx", "one"), ("2/model.onnx", "two")]), "1");
    let fetched = fetch(&config, &server.url("/iris.zip")).await.expect("it is there");
    assert_eq!(text(&fetched.path.join("2/model.onnx")), "two");
}

#[tokio::test]
async fn one_folder_around_everything_is_looked_through_but_a_repository_is_not() {
    let folder = folder();
    let config = config(&folder);
    let archive = folder.path().join("a.tgz");
    let uri = archive.to_str().expect("it is text").to_owned();
    pack(&archive, &[("./iris/model.onnx", "one")]);
    let fetched = fetch(&config, &uri).await.expect("it is there");
    assert_eq!(names(&fetched.path), ["model.onnx"]);
    pack(&archive, &[("iris/1/model.onnx", "one")]);
    let fetched = fetch(&config, &uri).await.expect("it is there");
    assert_eq!(names(&fetched.path), ["iris"]);
}
