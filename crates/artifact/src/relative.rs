//! Validates file names from archives and buckets.

use std::path::{Path, PathBuf};

/// Maximum length of the name of one file or folder, in bytes: Linux's `NAME_MAX`.
const MAX_SEGMENT: usize = 255;
/// Maximum length of a path in an artefact, in bytes: Linux's `PATH_MAX` less room for the folder of the cache.
const MAX_PATH: usize = 3_072;

/// A path of at least one segment below a folder: no `..`, not absolute, no empty segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelativePath(String);

impl RelativePath {
    /// Parses a name from an archive or a bucket. `.` and empty segments inside it are removed.
    ///
    /// # Errors
    /// Why it is not safe, as a part of a sentence.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if name.starts_with('/') {
            return Err("it is absolute".to_owned());
        }
        if name.contains(['\0', '\\']) {
            return Err("it contains \\ or NUL".to_owned());
        }
        let mut segments = Vec::new();
        for segment in name.split('/') {
            match segment {
                "" | "." => {}
                ".." => return Err("it leaves its folder with `..`".to_owned()),
                _ if segment.len() > MAX_SEGMENT => return Err(format!("a part of it is over {MAX_SEGMENT} bytes")),
                _ => segments.push(segment),
            }
        }
        let path = segments.join("/");
        match path.len() {
            0 => Err("it is empty".to_owned()),
            1..=MAX_PATH => Ok(Self(path)),
            _ => Err(format!("it is over {MAX_PATH} bytes")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its path below `folder`.
    pub(crate) fn below(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }

    /// The path that a link with the target `target` in this file's folder refers to.
    pub(crate) fn link(&self, target: &str) -> Result<Self, String> {
        if target.starts_with('/') {
            return Err("its target is absolute".to_owned());
        }
        let folder = self.0.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut segments: Vec<&str> = folder.split('/').filter(|segment| !segment.is_empty()).collect();
        for segment in target.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop().ok_or("its target leaves the archive with `..`")?;
                }
                _ => segments.push(segment),
            }
        }
        Self::parse(&segments.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in ["../x", "a/../../x", "a/..", "/etc/passwd", "..", "", ".", "a\\..\\b", "a\0b", "//x"] {
            assert!(RelativePath::parse(name).is_err(), "{name:?}");
        }
        assert!(RelativePath::parse(&"x".repeat(256)).is_err());
        assert!(RelativePath::parse(&"x/".repeat(4000)).is_err());
    }

    #[test]
    fn dots_and_doubled_slashes_mean_nothing() {
        for name in ["./a/b", "a//b", "a/./b/", "a/b"] {
            assert_eq!(RelativePath::parse(name).expect(name).as_str(), "a/b");
        }
        assert_eq!(RelativePath::parse("..a/b..").expect("dots in names are fine").as_str(), "..a/b..");
    }

    #[test]
    fn links_mean_files_below_the_same_folder_or_nothing() {
        let link = RelativePath::parse("a/b/link").expect("a safe name");
        assert_eq!(link.link("../c").expect("inside").as_str(), "a/c");
        assert_eq!(link.link("c").expect("inside").as_str(), "a/b/c");
        assert!(link.link("../../../c").is_err());
        assert!(link.link("/etc/passwd").is_err());
    }

    fn names() -> impl Strategy<Value = String> {
        let segment =
            prop_oneof!["[a-z]{1,3}", Just(".".to_owned()), Just("..".to_owned()), Just(String::new()), "\\PC{0,4}"];
        prop_oneof![proptest::collection::vec(segment, 0..8).prop_map(|parts| parts.join("/")), "\\PC{0,40}"]
    }

    fn stays_below(path: &RelativePath) -> bool {
        let folder = Path::new("/cache/entry");
        let whole = path.below(folder);
        whole.starts_with(folder)
            && whole != folder
            && Path::new(path.as_str()).components().all(|part| matches!(part, Component::Normal(_)))
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below_its_folder(name in names()) {
            if let Ok(path) = RelativePath::parse(&name) {
                prop_assert!(stays_below(&path), "{name:?} became {path:?}");
                prop_assert_eq!(RelativePath::parse(path.as_str()), Ok(path.clone()), "reading it again changes nothing");
            }
        }

        #[test]
        fn whatever_a_link_means_stays_below_its_folder(name in names(), target in names()) {
            if let Ok(path) = RelativePath::parse(&name) && let Ok(meant) = path.link(&target) {
                prop_assert!(stays_below(&meant), "{name:?} -> {target:?} became {meant:?}");
            }
        }

        #[test]
        fn ordinary_names_are_accepted(name in "[a-zA-Z0-9_-]{1,20}(/[a-zA-Z0-9_.-]{0,3}[a-z]){0,6}") {
            prop_assert_eq!(RelativePath::parse(&name).map(|path| path.as_str().to_owned()), Ok(name));
        }
    }
}
