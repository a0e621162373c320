//! Records made by a program of the operator's: `exec`.
//!
//! Never runs a shell: the program gets words. Source: spec acme 1.1. Read next: `request.rs`.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::debug;

use super::{Environment, Record};
use crate::limits::{ACME_PROGRAM_SAID_MAX, ACME_PROGRAM_TIME};

#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    /// It is given the token and the key authorization, and makes the record of them by itself.
    is_raw: bool,
}

impl Program {
    pub(super) fn new(environment: &Environment<'_>) -> Result<Self, String> {
        let mode = environment.value("EXEC_MODE")?.unwrap_or_default();
        Ok(Self {
            path: environment.needed("EXEC_PATH", "exec")?.into(),
            is_raw: mode.eq_ignore_ascii_case("RAW"),
        })
    }

    /// `action` is `present` or `cleanup`.
    pub(super) async fn run(&self, action: &str, record: &Record) -> Result<(), String> {
        let mut command = Command::new(&self.path);
        command.arg(action);
        if self.is_raw {
            // A token may begin with `-`.
            command.args([
                "--",
                &record.domain,
                &record.token,
                &record.key_authorization,
            ]);
        } else {
            command.args([&record.name(), &record.value]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let path = self.path.display();
        let done = timeout(ACME_PROGRAM_TIME, command.output())
            .await
            .map_err(|_| format!("{path} {action} did not end within {ACME_PROGRAM_TIME:?}"))?
            .map_err(|error| format!("{path}: {error}"))?;
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let said: String = said.trim().chars().take(ACME_PROGRAM_SAID_MAX).collect();
        if done.status.success() {
            debug!("ACME: {path} {action}: {said}");
            return Ok(());
        }
        Err(format!("{path} {action}: {}: {said}", done.status))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn run(script: &str, is_raw: bool) -> (Result<(), String>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("records");
        let told = folder.path().join("told");
        fs::write(
            &path,
            format!("#!/bin/sh\necho \"$@\" > {}\n{script}\n", told.display()),
        )
        .expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("ours");
        let record = Record {
            domain: "a.test".to_owned(),
            token: "-token".to_owned(),
            key_authorization: "-token.thumb".to_owned(),
            value: "digest".to_owned(),
        };
        let program = Program { path, is_raw };
        // Another test of this process may hold the file open for a moment while it starts a program.
        let mut done = program.run("present", &record).await;
        while done
            .as_ref()
            .is_err_and(|why| why.contains("Text file busy"))
        {
            tokio::task::yield_now().await;
            done = program.run("present", &record).await;
        }
        (done, fs::read_to_string(told).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_program_is_told_what_to_make() {
        let (done, told) = run("", false).await;
        assert_eq!(
            (done, told.trim()),
            (Ok(()), "present _acme-challenge.a.test. digest")
        );
        let (done, told) = run("", true).await;
        assert_eq!(
            (done, told.trim()),
            (Ok(()), "present -- a.test -token -token.thumb")
        );
    }

    #[tokio::test]
    async fn what_a_program_says_when_it_fails_is_passed_on() {
        let (done, _) = run("echo no such zone >&2; exit 3", false).await;
        let why = done.expect_err("it failed");
        assert!(
            why.ends_with("records present: exit status: 3: no such zone"),
            "{why}"
        );
        let program = Program {
            path: "/nope/records".into(),
            is_raw: false,
        };
        let record = Record {
            domain: String::new(),
            token: String::new(),
            key_authorization: String::new(),
            value: String::new(),
        };
        let why = program
            .run("cleanup", &record)
            .await
            .expect_err("it is not there");
        assert!(why.starts_with("/nope/records: No such file"), "{why}");
    }
}
