//! The folders and files in the data directory.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use api::{DeploymentId, ReplicaId, RevisionNumber};

/// The maximum length of the path of a Unix socket, in bytes, and the maximum length of the name of a replica's socket.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_NAME_MAX: usize = 48;

/// The folders of one data directory, created and checked.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// A random name that is stored in the data directory.
    pub(super) node: String,
    replicas: PathBuf,
    sockets: PathBuf,
}

impl Layout {
    /// Creates what is missing in `data_dir`.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        base::private::folder(data_dir).map_err(|error| at("create", data_dir, error))?;
        // An absolute path, because children have another working directory.
        let data_dir = data_dir.canonicalize().map_err(|error| at("find", data_dir, error))?;
        let node = node_id(&data_dir)?;
        let replicas = private_dir(data_dir.join("replicas"))?;
        private_dir(replicas.join(".ended"))?;
        let sockets = data_dir.join("sockets");
        let sockets = if sockets.as_os_str().len() + 1 + SOCKET_NAME_MAX <= SOCKET_PATH_MAX {
            sockets
        } else {
            PathBuf::from(format!("/tmp/modelway-{}-{node}", rustix::process::geteuid().as_raw()))
        };
        Ok(Self { node, replicas, sockets: private_dir(sockets)? })
    }

    /// Creates the folder of all replicas again, if somebody removed it.
    pub(super) fn restore(&self) -> io::Result<()> {
        private_dir(private_dir(self.replicas.clone())?.join(".ended")).map(|_| ())
    }

    /// The folder of one replica.
    pub(super) fn slot(&self, replica: &ReplicaId) -> PathBuf {
        self.replicas.join(&replica.0)
    }

    /// The socket of one replica.
    pub(super) fn socket(&self, replica: &ReplicaId) -> PathBuf {
        self.sockets.join(format!("{replica}.sock"))
    }

    /// The lock for changes of a deployment's replicas.
    pub(super) fn lock(&self, deployment: DeploymentId) -> PathBuf {
        self.replicas.join(format!("{deployment}.lock"))
    }

    /// The folder for the logs of removed replicas.
    pub(super) fn ended(&self) -> PathBuf {
        self.replicas.join(".ended")
    }

    /// The sorted names of all replicas that have a folder, or of those of one deployment.
    pub(super) fn names(&self, only: Option<DeploymentId>) -> io::Result<Vec<Name>> {
        let mut names: Vec<Name> = fs::read_dir(&self.replicas)
            .map_err(|error| at("read", &self.replicas, error))?
            .flatten()
            .filter_map(|entry| Name::parse(entry.file_name().to_str()?))
            .filter(|name| only.is_none_or(|deployment| name.deployment == deployment))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The locks of deployments, with their paths.
    pub(super) fn locks(&self) -> io::Result<Vec<(DeploymentId, PathBuf)>> {
        Ok(fs::read_dir(&self.replicas)?
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let deployment = name.to_str()?.strip_suffix(".lock")?.parse().ok()?;
                Some((deployment, entry.path()))
            })
            .collect())
    }
}

/// The parts of the name of a replica: `md-26-r3-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    /// The deployment.
    pub(super) deployment: DeploymentId,
    /// The revision.
    pub(super) revision: RevisionNumber,
    /// The ordinal, from 0.
    pub(super) ordinal: u32,
}

impl Name {
    /// Parses a name; `None` if it is invalid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (rest, ordinal) = text.rsplit_once('-')?;
        let (deployment, revision) = rest.rsplit_once("-r")?;
        let name = Self {
            deployment: deployment.parse().ok()?,
            revision: RevisionNumber(revision.parse().ok()?),
            ordinal: ordinal.parse().ok()?,
        };
        (name.id().0 == text).then_some(name)
    }

    /// The name as an id.
    pub(super) fn id(self) -> ReplicaId {
        ReplicaId(format!("{}-r{}-{}", self.deployment, self.revision, self.ordinal))
    }
}

/// The error, with the operation and the path.
pub(super) fn at(verb: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

/// Creates a folder owned by this user; refuses one of another user.
fn private_dir(path: PathBuf) -> io::Result<PathBuf> {
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => return Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", &path, error)),
    }
    let found = fs::symlink_metadata(&path).map_err(|error| at("inspect", &path, error))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} must be a folder of this user; remove it or choose another data directory", path.display()),
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(|error| at("protect", &path, error))?;
    }
    Ok(path)
}

/// The name of the data directory. It is created once, even if several processes open the directory at the same time.
fn node_id(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("node-id");
    if !path.exists() {
        let fresh = data_dir.join(format!(".node-id.{:016x}", rand::random::<u64>()));
        let name = format!("{:016x}\n", rand::random::<u64>());
        let written = base::private::create(&fresh).and_then(|mut file| file.write_all(name.as_bytes()));
        written.map_err(|error| at("write", &fresh, error))?;
        // Unlike a rename, a link never replaces a name that another process has just created.
        let linked = fs::hard_link(&fresh, &path);
        fs::remove_file(&fresh).map_err(|error| at("remove", &fresh, error))?;
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at("write", &path, error)),
        }
    }
    let text = fs::read_to_string(&path).map_err(|error| at("read", &path, error))?;
    let node = text.trim();
    let fits = !node.is_empty() && node.len() <= 32 && node.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| node.to_owned()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} does not hold a node's name; restore it, or remove it with everything beside it",
                path.display()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_only_in_the_form_in_which_it_is_written() {
        let name = Name::parse("md-26-r3-0").expect("it is one");
        assert_eq!((name.deployment, name.revision, name.ordinal), (DeploymentId(26), RevisionNumber(3), 0));
        assert_eq!(name.id().0, "md-26-r3-0");
        for other in
            ["md-26.lock", ".ended", "md-26-r3", "26-r3-0", "md-26-r03-0", "md-0-r1-0", "../md-1-r1-0", "md-1-r1-+0"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_data_directory_keeps_its_name_and_its_folders_are_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Layout::open(dir.path()).expect("it opens");
        let second = Layout::open(dir.path()).expect("it opens again");
        assert_eq!(first.node, second.node);
        assert_eq!(fs::metadata(&first.sockets).expect("it exists").mode() & 0o777, 0o700);
    }

    #[test]
    fn a_deep_data_directory_gets_its_sockets_where_their_paths_fit() {
        let dir = tempfile::tempdir().expect("a folder");
        let deep = dir.path().join("d".repeat(120));
        let layout = Layout::open(&deep).expect("it opens");
        let socket = layout.socket(&ReplicaId("md-9223372036854775807-r4294967295-999".to_owned()));
        assert!(socket.as_os_str().len() <= SOCKET_PATH_MAX, "{}", socket.display());
        fs::remove_dir(&layout.sockets).expect("it is empty");
    }
}
