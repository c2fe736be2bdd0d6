//! The environment of a command: the container's own, unchanged by the shells in between.
//!
//! In: the environment that the service gave the first shell, that of the container's first process, and the one
//! that a command of the second shell would get. Out: the arguments of `env` that turn the last into the first.
//! Pure. Shells set `PWD`, `OLDPWD`, `SHLVL`, `_`, `IFS`, `OPTIND` and `PPID`, drop names that are no identifiers
//! (`my.name`), and an interactive shell runs the file that `ENV` names.

use std::collections::BTreeMap;

/// The value of `TERM` that a container runtime sets for a command with a terminal.
const DEFAULT_TERM: &str = "xterm";

/// Variables by name. Variables with values that are not UTF-8 are left out, and so keep the values that they have.
type Variables = BTreeMap<String, String>;

/// The environments of the shells and the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellEnvironment {
    /// What the service gave the first shell.
    service: Variables,
    /// What the container's first process was given; empty if the operator may not read it.
    container: Variables,
    /// What a command of the second shell gets; empty if not known, or if the image has no `env`.
    shell: Variables,
}

impl ShellEnvironment {
    /// Reads three environments in the format of `/proc`: variables that each end with a NUL.
    pub fn parse(given: &[u8], container: &[u8], shell: &[u8]) -> Self {
        Self {
            service: parse_variables(given),
            container: parse_variables(container),
            shell: parse_variables(shell),
        }
    }

    /// The words to put in front of a command, starting with `env`; empty if the command gets the right
    /// environment without them. `None` if that is not known.
    pub fn env_command(&self, has_terminal: bool) -> Option<Vec<String>> {
        if self.service.is_empty() || self.shell.is_empty() {
            return None;
        }
        let mut wanted = self.service.clone();
        let named = wanted.get("TERM").map(String::as_str);
        if has_terminal {
            // As a container runtime does.
            wanted
                .entry("TERM".to_owned())
                .or_insert_with(|| DEFAULT_TERM.to_owned());
        } else if named == Some(DEFAULT_TERM)
            && !self.container.is_empty()
            && !self.container.contains_key("TERM")
        {
            // The service set it for its own terminal; the client did not request one.
            wanted.remove("TERM");
        }
        let mut words = vec!["env".to_owned()];
        for name in self.shell.keys().filter(|name| !wanted.contains_key(*name)) {
            words.extend(["-u".to_owned(), name.clone()]);
        }
        let is_changed = |(name, value): &(&String, &String)| self.shell.get(*name) != Some(value);
        let changed = wanted.iter().filter(is_changed);
        words.extend(changed.map(|(name, value)| format!("{name}={value}")));
        if words.len() == 1 {
            words.clear();
        }
        Some(words)
    }
}

fn parse_variables(environment: &[u8]) -> Variables {
    let variables = environment.split(|byte| *byte == 0);
    let variables =
        variables.filter_map(|variable| std::str::from_utf8(variable).ok()?.split_once('='));
    // `env` would read a name that begins with a hyphen as an option.
    let variables = variables.filter(|(name, _)| !name.is_empty() && !name.starts_with('-'));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_of_the_shells_to_the_environment_are_undone() {
        let environment = ShellEnvironment::parse(
            b"A=1\0PWD=/given\0my.name=x\ny\0SHLVL=3\0",
            b"",
            b"A=1\0PWD=/\0SHLVL=5\0_=/bin/env\0OLDPWD=/\0",
        );
        assert_eq!(
            environment.env_command(false).expect("it is known"),
            [
                "env",
                "-u",
                "OLDPWD",
                "-u",
                "_",
                "PWD=/given",
                "SHLVL=3",
                "my.name=x\ny"
            ]
        );
    }

    #[test]
    fn term_is_set_if_the_command_has_a_terminal_or_the_container_sets_it() {
        let words = |given: &[u8], container: &[u8], shell: &[u8], has_terminal| {
            let environment = ShellEnvironment::parse(given, container, shell);
            environment
                .env_command(has_terminal)
                .map(|words| words.join(" "))
        };
        let (with, without) = (&b"A=1\0TERM=xterm\0"[..], &b"A=1\0"[..]);
        for (given, container, has_terminal, expected) in [
            (with, without, false, "env -u TERM"),
            (with, with, false, ""),
            (with, &b""[..], false, ""),
            (with, without, true, ""),
            (without, without, true, "env TERM=xterm"),
            (&b"TERM=vt100\0A=1\0"[..], without, false, ""),
        ] {
            assert_eq!(
                words(given, container, given, has_terminal).as_deref(),
                Some(expected)
            );
        }
        assert_eq!(words(b"", with, with, true), None);
        assert_eq!(words(with, with, b"", true), None);
    }
}
