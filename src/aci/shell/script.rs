//! The shell scripts that make ACI's terminal behave as kubectl expects of exec.
//!
//! In: a command. Out: lines for `/bin/sh`. Pure. ACI starts one program without arguments in a terminal, and
//! reports no exit code. So the program is `/bin/sh`. The first line makes the terminal pass bytes unchanged and
//! starts a second shell, which reads a script of one line. The script runs the command with its arguments quoted,
//! and then prints a random marker and the exit code.
//!
//! If the client has no terminal, the command's output goes through `cat`, so that the command sees no terminal
//! either; its input comes in parts, each with its length in front; and its stderr goes through a named pipe that a
//! second session reads.
//!
//! The command must not notice any of this: the script sets no variable that the container may have, and
//! [`ShellEnvironment`] undoes the changes of the shells.

use std::fmt::Write as _;

use super::TerminalSize;
use super::environment::ShellEnvironment;

/// The directories to try for the named pipe.
const PIPE_DIRECTORIES: [&str; 3] = ["/tmp", "/dev/shm", "/var/tmp"];

/// A random marker in the output, which nothing else can print by accident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputMarker(String);

impl OutputMarker {
    /// A new marker.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// The bytes to look for.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its two halves, separated by a blank: the echo of a script is no marker.
    fn halves(&self) -> String {
        let (a, b) = self.0.split_at(16);
        format!("{a} {b}")
    }

    /// The name of a shell variable that the container does not have: setting one that it has would change the
    /// command's environment.
    fn variable(&self, letter: char) -> String {
        format!("_{}{letter}", &self.0[..16])
    }
}

/// The first line: makes the terminal pass bytes unchanged, and starts a second shell that waits for a script.
/// Prints four parts, each followed by the marker: what the terminal showed before, the environment that the
/// service gave, that of the container's first process, and that of a command. If the program is not a shell or has
/// no `stty`, the next line is `exit`, which ends it.
///
/// The first shell is interactive: it runs the file that `ENV` names (the backslashes bypass its aliases), and may
/// write the line into its history file.
pub fn boot_script(marker: &OutputMarker) -> String {
    let halves = marker.halves();
    let print_marker = format!("printf \"%s%s;\" {halves}");
    let inner = second_shell_script(marker);
    format!(
        " set -- \"$(\\stty -g)\" \"${{HISTFILE-}}\";unset HISTFILE;\\stty raw -echo&&{{ \\{print_marker};\\cat /proc/$$/environ 2>/dev/null;\\{print_marker};\\cat /proc/1/environ 2>/dev/null;\\{print_marker};exec /bin/sh -c '{inner}' sh \"$@\";}}\nexit\n"
    )
}

/// The program of the second shell. Its arguments are the terminal's original settings, and the first shell's
/// history file, from which it removes the first line. It must not contain a single quote.
fn second_shell_script(marker: &OutputMarker) -> String {
    let (halves, line) = (marker.halves(), marker.variable('s'));
    format!(
        "set +aefu;if grep -qs \"stty raw -echo\" \"$2\";then sed -i \"/stty raw -echo/d\" \"$2\";[ -s \"$2\" ]||rm -f \"$2\";fi;command -v env >/dev/null&&{{ env -0||cat /proc/self/environ;}} 2>/dev/null;printf \"%s%s;\" {halves};while IFS= read -r {line};do case ${line} in :*)eval \"${line}\";exit;;esac;done"
    )
}

/// A command, and what it is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellCommand {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it has input.
    pub stdin: bool,
    /// Whether its stderr goes to a session of its own. Otherwise it is dropped.
    pub stderr: bool,
}

/// The script for a command without a terminal. It prints `part_marker` after each part of the input, and the next
/// part must not be sent earlier: the terminal's connection may carry only one direction at a time, and an unread
/// part would block the output.
pub fn command_script(
    wanted: &ShellCommand,
    environment: &ShellEnvironment,
    marker: &OutputMarker,
    part_marker: &OutputMarker,
) -> String {
    let (halves, part_marker) = (marker.halves(), part_marker.halves());
    let words = environment.env_command(false).unwrap_or_default();
    let mut script = format!(":;{}", set_arguments(&wanted.command, words, marker));
    let pipe = marker.variable('f');
    if wanted.stderr {
        let pipes = pipe_paths(marker);
        // Without a named pipe, stderr goes to stdout.
        let _ = write!(
            script,
            "for {pipe} in {pipes};do [ -p ${pipe} ]&&break;{pipe}=;done;if [ \"${pipe}\" ];then exec 2>${pipe};rm -f ${pipe};else exec 2>&1;fi;"
        );
    } else {
        script.push_str("exec 2>/dev/null;");
    }
    // Only a session with a named pipe waits for the end of stderr.
    let end_stderr = if wanted.stderr {
        format!("[ \"${pipe}\" ]&&printf '%s%s;' {halves} >&2")
    } else {
        String::from(":")
    };
    let run = format!("(exec \"$@\");printf '%s%s%s;' {halves} $?;{end_stderr}");
    if wanted.stdin {
        let length = marker.variable('n');
        let _ = write!(
            script,
            "{{ while IFS= read -r {length}&&[ \"${length}\" -gt 0 ];do dd bs=${length} count=1 iflag=fullblock 2>/dev/null;printf '%s%s;' {part_marker} >&4;done|{{ {run};}} 4>&-|cat 4>&-;}} 4>&1"
        );
    } else {
        let _ = write!(script, "{{ {run};}} </dev/null|cat");
    }
    script.push('\n');
    script
}

/// The script of the session that reads stderr: prints the marker and 1 once the pipe exists, or 0 if none can be
/// created.
pub fn stderr_script(marker: &OutputMarker) -> String {
    let (halves, pipes) = (marker.halves(), pipe_paths(marker));
    format!(
        ":;for f in {pipes};do mkfifo -m 600 $f 2>/dev/null&&break;f=;done;if [ \"$f\" ];then printf '%s%s1;' {halves};exec cat $f;else printf '%s%s0;' {halves};fi\n"
    )
}

/// The script for a command in the client's terminal: prints the marker and the terminal's device first, and
/// restores the terminal's original settings.
pub fn terminal_script(
    command: &[String],
    environment: &ShellEnvironment,
    marker: &OutputMarker,
    size: Option<TerminalSize>,
) -> String {
    let halves = marker.halves();
    let mut script = format!(
        ":;printf '%s%s%s;' {halves} \"$(tty)\";stty \"$1\" 2>/dev/null||stty sane 2>/dev/null;"
    );
    if let Some(TerminalSize { width, height }) = size {
        let _ = write!(script, "stty rows {height} cols {width} 2>/dev/null;");
    }
    let words = environment.env_command(true);
    if words.is_none() {
        script.push_str("export TERM=${TERM:-xterm};");
    }
    script.push_str(&set_arguments(command, words.unwrap_or_default(), marker));
    // Ctrl-C is for the command: this shell must survive to print the exit code.
    let _ = writeln!(
        script,
        "trap : INT QUIT;(exec \"$@\");printf '%s%s%s;' {halves} $?"
    );
    script
}

/// The script that resizes another session's terminal; `None` if `terminal` is not a device path.
pub fn resize_script(
    terminal: &str,
    TerminalSize { width, height }: TerminalSize,
) -> Option<String> {
    let is_device = terminal.starts_with("/dev/")
        && terminal
            .bytes()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == b'/');
    is_device.then(|| format!(":;stty rows {height} cols {width} <{terminal}\n"))
}

fn pipe_paths(marker: &OutputMarker) -> String {
    let names = PIPE_DIRECTORIES.map(|directory| format!("{directory}/.{}", marker.0));
    names.join(" ")
}

/// Sets the command as the shell's arguments, with `words` in front. The script must be one line, so a variable
/// stands for each line break.
fn set_arguments(command: &[String], mut words: Vec<String>, marker: &OutputMarker) -> String {
    // `env` would read a program name with `=` as a variable.
    if command.first().is_some_and(|program| program.contains('=')) {
        words.clear();
    }
    let end = marker.variable('e');
    let words = words.iter().chain(command);
    let words: Vec<String> = words.map(|word| shell_quoted(word, &end)).collect();
    let words = words.join(" ");
    format!("{end}=$(printf '\\nx');{end}=${{{end}%x}};set -- {words};")
}

/// Quotes a word for the shell; `end` is the variable that holds a line break.
fn shell_quoted(word: &str, end: &str) -> String {
    let word = word
        .replace('\'', "'\\''")
        .replace('\n', &format!("'\"${end}\"'"));
    format!("'{word}'")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn wanted(command: &[&str]) -> ShellCommand {
        ShellCommand {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ShellCommand::default()
        }
    }

    /// The output of `sh` for a script.
    fn run(script: &str, input: &[u8]) -> String {
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        // A command that does not read its input closes the pipe early.
        let _ = shell.stdin.take().expect("piped").write_all(input);
        let done = shell.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    #[test]
    fn arguments_reach_the_command_as_they_are() {
        let marker = OutputMarker::random();
        let hostile = "a'b \"c\" $(d) `e` \\ \n\nf;*";
        let script = command_script(
            &wanted(&["printf", "%s|", hostile, "", "-x"]),
            &ShellEnvironment::default(),
            &marker,
            &OutputMarker::random(),
        );
        assert_eq!(script.matches('\n').count(), 1, "it is one line");
        assert_eq!(run(&script, b""), format!("{hostile}||-x|{}0;", marker.0));
    }

    #[test]
    fn exit_codes_are_printed_after_all_output() {
        let marker = OutputMarker::random();
        for (command, code) in [("echo x; exit 3", 3), ("echo x; kill -9 $$", 137)] {
            let script = command_script(
                &wanted(&["sh", "-c", command]),
                &ShellEnvironment::default(),
                &marker,
                &OutputMarker::random(),
            );
            assert_eq!(run(&script, b""), format!("x\n{}{code};", marker.0));
        }
        let script = command_script(
            &wanted(&["no-such-program"]),
            &ShellEnvironment::default(),
            &marker,
            &OutputMarker::random(),
        );
        assert_eq!(run(&script, b""), format!("{}127;", marker.0));
        // The program called `exit`, not the shell's builtin.
        let script = command_script(
            &wanted(&["exit", "3"]),
            &ShellEnvironment::default(),
            &marker,
            &OutputMarker::random(),
        );
        assert_eq!(run(&script, b""), format!("{}127;", marker.0));
    }

    /// The shells that images have as `/bin/sh`.
    const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];
    /// Variables that some shell sets, changes or drops, and names that scripts often use.
    const GIVEN: &[u8] = b"PATH=/usr/bin:/bin\0HOME=/nowhere\0N=5\0s=small\0n=1\0c=2\0f=3\0IFS=:\0OPTIND=4\0PPID=7\0UID=77\0\
        PWD=/nowhere\0OLDPWD=/before\0SHLVL=9\0_=mine\0my.name=x\0a-b=y\0MULTI=a\nb'c\"$(d)\0E=\xc4\x81\xc2\x88\0LINES=3\0COLUMNS=9\0\
        RANDOM=1\0SECONDS=2\0PS1=>\0PS4=!\0ENV=/nowhere\0SHELLOPTS=errexit:nounset\0EMPTY=\0";

    /// The output of `shell` for [`second_shell_script`] and then for `script`, split at the marker.
    fn run_in(shell: &[&str], marker: &OutputMarker, script: &str) -> Option<Vec<String>> {
        let variables = GIVEN.split(|byte| *byte == 0);
        let variables =
            variables.filter_map(|variable| std::str::from_utf8(variable).ok()?.split_once('='));
        let mut shell = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &second_shell_script(marker), "sh", "", ""])
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut input = shell.stdin.take().expect("piped");
        input.write_all(script.as_bytes()).expect("it is read");
        drop(input);
        let done = shell.wait_with_output().expect("it ends");
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        Some(output.split(&marker.0).map(str::to_owned).collect())
    }

    #[test]
    fn a_command_has_the_containers_environment_in_every_shell() {
        let sorted = |variables: &str| {
            let mut sorted: Vec<String> = variables.split('\0').map(str::to_owned).collect();
            sorted.sort();
            sorted
        };
        let given = sorted(&String::from_utf8_lossy(GIVEN));
        for shell in SHELLS {
            let marker = OutputMarker::random();
            let Some(output) = run_in(shell, &marker, "") else {
                continue;
            };
            assert_ne!(sorted(&output[0]), given, "{shell:?} changes nothing");
            let environment = ShellEnvironment::parse(GIVEN, b"", output[0].as_bytes());
            for (stdin, input) in [(false, ""), (true, "0\n")] {
                let wanted = ShellCommand {
                    stdin,
                    ..wanted(&["env", "-0"])
                };
                let script =
                    command_script(&wanted, &environment, &marker, &OutputMarker::random());
                let output = run_in(shell, &marker, &(script + input)).expect("it was there");
                assert_eq!(sorted(&output[1][1..]), given, "{shell:?}");
                assert_eq!(output[2], "0;", "{shell:?}");
            }
            let script =
                terminal_script(&wanted(&["env", "-0"]).command, &environment, &marker, None);
            let output = run_in(shell, &marker, &script).expect("it was there");
            let mut with = given.clone();
            with.push("TERM=xterm".to_owned());
            with.sort();
            let (_, shown) = output[2].split_once(';').expect("a terminal");
            assert_eq!(sorted(shown), with, "{shell:?}");
        }
    }

    #[test]
    fn the_first_line_is_removed_from_the_history() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history");
        for (before, after) in [("ls\n", Some("ls\n")), ("", None)] {
            let marker = OutputMarker::random();
            let line = boot_script(&marker)
                .lines()
                .next()
                .expect("a line")
                .to_owned();
            std::fs::write(&file, format!("{before}{line}\n")).expect("it is written");
            let ended = Command::new("sh")
                .args(["-c", &second_shell_script(&marker), "sh", ""])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
            assert!(ended.expect("a shell").success());
            assert_eq!(std::fs::read_to_string(&file).ok().as_deref(), after);
        }
    }

    #[test]
    fn input_comes_in_parts_and_ends() {
        let (marker, part_marker) = (OutputMarker::random(), OutputMarker::random());
        let script = command_script(
            &ShellCommand {
                stdin: true,
                ..wanted(&["cat"])
            },
            &ShellEnvironment::default(),
            &marker,
            &part_marker,
        );
        let output = run(&script, b"3\nab\n6\n0\nc d\n0\nignored");
        let part_marker = format!("{};", part_marker.0);
        assert_eq!(output.matches(&part_marker).count(), 2, "{output}");
        let output = output.replace(&part_marker, "");
        assert_eq!(output, format!("ab\n0\nc d\n{}0;", marker.0));
    }

    #[test]
    fn scripts_do_not_contain_the_marker_itself() {
        let (marker, environment) = (OutputMarker::random(), ShellEnvironment::default());
        assert!(!boot_script(&marker).contains(&marker.0));
        assert!(
            !terminal_script(&wanted(&["sh"]).command, &environment, &marker, None)
                .contains(&marker.0)
        );
    }

    #[test]
    fn only_terminals_are_resized() {
        let size = TerminalSize {
            width: 120,
            height: 40,
        };
        let script = resize_script("/dev/pts/3", size);
        assert_eq!(
            script.as_deref(),
            Some(":;stty rows 40 cols 120 </dev/pts/3\n")
        );
        assert_eq!(resize_script("/dev/x;reboot", size), None);
        assert_eq!(resize_script("not a tty", size), None);
    }
}
