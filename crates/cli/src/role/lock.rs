//! Allows only one `up` at a time in a data folder.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::exit::Failure;

const FILE: &str = "up.lock";

/// A lock on a data folder. The kernel releases it when the process ends in any way.
#[derive(Debug)]
pub(super) struct Hold {
    file: File,
}

impl Hold {
    /// Locks the folder, or reports who holds it.
    pub(super) fn take(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let unusable = |error: std::io::Error| {
            Failure::failed(format!("{} cannot be used: {error}", path.display()))
                .next("Choose another data folder with --data-dir.")
        };
        let mut file = base::private::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(unusable)?;
                return Err(taken(folder, holder.trim()));
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let mut hold = Self { file };
        hold.write("").map_err(unusable)?;
        Ok(hold)
    }

    /// Records the addresses of this process, for the error of a second one.
    pub(super) fn say(&mut self, addresses: &str) -> Result<(), Failure> {
        self.write(addresses).map_err(|error| Failure::failed(format!("{FILE} cannot be written: {error}")))
    }

    fn write(&mut self, addresses: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "process {}{addresses}", std::process::id())
    }
}

fn taken(folder: &Path, holder: &str) -> Failure {
    let holder = if holder.is_empty() { "another process" } else { holder };
    Failure::failed(format!("the data folder {} is in use by {holder}; nothing was changed", folder.display()))
        .next("Use that one, stop it first, or choose another folder with --data-dir.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_holds_the_folder_and_the_next_one_gets_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = Hold::take(folder.path()).expect("nobody has it");
        first.say(", gateway http://127.0.0.1:1").expect("it can be written");
        let said = Hold::take(folder.path()).expect_err("it is held").message;
        let pid = std::process::id().to_string();
        assert!(said.contains(&pid) && said.contains("http://127.0.0.1:1"), "{said}");
        assert!(said.contains(&folder.path().display().to_string()), "{said}");
        drop(first);
        assert!(Hold::take(folder.path()).is_ok());
    }
}
