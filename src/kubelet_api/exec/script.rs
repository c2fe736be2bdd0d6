//! What is typed into a container's terminal so that it becomes what kubectl expects.
//!
//! In: a command. Out: lines for `/bin/sh`. Pure. ACI starts one program without arguments in a terminal,
//! and tells no exit code. So the program is `/bin/sh`; it is told to make the terminal carry bytes as they
//! are, and to read a script, of one line, which runs the command with its arguments quoted, and says at
//! the end a mark that nobody can guess and the exit code.
//!
//! Without a terminal for the client, the command's output goes through `cat`, so that the command sees
//! none; its input comes in parts, each with its length in front; and its errors go through a named pipe
//! that a second session reads.

use std::fmt::Write as _;

use crate::kubelet_api::remote_command::{Size, Wanted};

/// Where the named pipe may be made.
const DIRECTORIES: [&str; 3] = ["/tmp", "/dev/shm", "/var/tmp"];

/// A mark that is said where nothing else may be taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// A mark that was never used.
    pub fn new() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// What is looked for.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its halves: as they are typed they are apart, so that an echo of what is typed is no mark.
    fn halves(&self) -> String {
        let (a, b) = self.0.split_at(16);
        format!("{a} {b}")
    }
}

/// What is typed first: carries bytes as they are, says the mark, and waits for a script. Whatever is no
/// shell, or has no `stty`, meets `exit` next, and ends.
pub fn boot(mark: &Mark) -> String {
    let halves = mark.halves();
    format!(
        " stty raw -echo&&exec sh -c 'printf %s%s {halves};while IFS= read -r s;do case $s in :*)eval \"$s\";exit;;esac;done'\nexit\n"
    )
}

/// The script for a command whose streams are apart. It says `taken` after each part of the input, and is
/// to be given the next one then: whoever carries a terminal may carry one way at a time, and a part that
/// nobody reads would keep the output from coming.
pub fn apart(wanted: &Wanted, mark: &Mark, taken: &Mark) -> String {
    let (halves, taken) = (mark.halves(), taken.halves());
    let mut script = opening(&wanted.command);
    if wanted.stderr {
        let pipes = pipes(mark);
        // Without a named pipe errors go where output goes.
        let _ = write!(
            script,
            "for f in {pipes};do [ -p $f ]&&break;f=;done;if [ \"$f\" ];then exec 2>$f;rm -f $f;else exec 2>&1;fi;"
        );
    } else {
        script.push_str("exec 2>/dev/null;");
    }
    // Without a named pipe, nobody waits for the end of errors.
    let told = if wanted.stderr {
        format!("[ \"$f\" ]&&printf '%s%s;' {halves} >&2")
    } else {
        String::from(":")
    };
    let run = format!("(exec \"$@\");c=$?;printf '%s%s%s;' {halves} $c;{told}");
    if wanted.stdin {
        let _ = write!(
            script,
            "{{ while IFS= read -r n&&[ \"$n\" -gt 0 ];do dd bs=$n count=1 iflag=fullblock 2>/dev/null;printf '%s%s;' {taken} >&4;done|{{ {run};}} 4>&-|cat 4>&-;}} 4>&1"
        );
    } else {
        let _ = write!(script, "{{ {run};}} </dev/null|cat");
    }
    script.push('\n');
    script
}

/// The script of the session that reads errors: says the mark and 1 once there is a pipe, or 0.
pub fn errors(mark: &Mark) -> String {
    let (halves, pipes) = (mark.halves(), pipes(mark));
    format!(
        ":;for f in {pipes};do mkfifo -m 600 $f 2>/dev/null&&break;f=;done;if [ \"$f\" ];then printf '%s%s1;' {halves};exec cat $f;else printf '%s%s0;' {halves};fi\n"
    )
}

/// The script for a command in the client's terminal: says the mark and which terminal it is, first.
pub fn terminal(wanted: &Wanted, mark: &Mark, size: Option<Size>) -> String {
    let halves = mark.halves();
    let mut script = opening(&wanted.command);
    let _ = write!(
        script,
        "printf '%s%s%s;' {halves} \"$(tty)\";stty sane 2>/dev/null;"
    );
    if let Some(Size { width, height }) = size {
        let _ = write!(script, "stty rows {height} cols {width} 2>/dev/null;");
    }
    // Ctrl-C is for the command; this shell has yet to say how it ended.
    let _ = writeln!(
        script,
        "export TERM=${{TERM:-xterm}};trap : INT QUIT;(exec \"$@\");c=$?;printf '%s%s%s;' {halves} $c"
    );
    script
}

/// The script that sizes another session's terminal.
pub fn resize(terminal: &str, Size { width, height }: Size) -> Option<String> {
    let is_device = terminal.starts_with("/dev/")
        && terminal
            .bytes()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == b'/');
    is_device.then(|| format!(":;stty rows {height} cols {width} <{terminal}\n"))
}

fn pipes(mark: &Mark) -> String {
    let names = DIRECTORIES.map(|directory| format!("{directory}/.{}", mark.0));
    names.join(" ")
}

/// Sets the command as the shell's arguments. The script is one line: N stands for the ends of lines.
fn opening(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let words = words.join(" ");
    format!(":;N=$(printf '\\nx');N=${{N%x}};set -- {words};")
}

/// A word as the shell takes it for one, whatever is in it.
fn quoted(word: &str) -> String {
    let word = word.replace('\'', "'\\''").replace('\n', "'\"$N\"'");
    format!("'{word}'")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn wanted(command: &[&str]) -> Wanted {
        Wanted {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdout: true,
            ..Wanted::default()
        }
    }

    /// What `sh` says when it runs a script.
    fn run(script: &str, input: &[u8]) -> String {
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        // A command that does not read leaves a pipe that nobody reads.
        let _ = shell.stdin.take().expect("piped").write_all(input);
        let done = shell.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    #[test]
    fn arguments_reach_the_command_as_they_are() {
        let mark = Mark::new();
        let hostile = "a'b \"c\" $(d) `e` \\ \n\nf;*";
        let script = apart(
            &wanted(&["printf", "%s|", hostile, "", "-x"]),
            &mark,
            &Mark::new(),
        );
        assert_eq!(script.matches('\n').count(), 1, "it is one line");
        assert_eq!(run(&script, b""), format!("{hostile}||-x|{}0;", mark.0));
    }

    #[test]
    fn exit_codes_are_said_after_all_output() {
        let mark = Mark::new();
        for (command, code) in [("echo x; exit 3", 3), ("echo x; kill -9 $$", 137)] {
            let script = apart(&wanted(&["sh", "-c", command]), &mark, &Mark::new());
            assert_eq!(run(&script, b""), format!("x\n{}{code};", mark.0));
        }
        let script = apart(&wanted(&["no-such-program"]), &mark, &Mark::new());
        assert_eq!(run(&script, b""), format!("{}127;", mark.0));
        // A program, and not what the shell would do by that name.
        let script = apart(&wanted(&["exit", "3"]), &mark, &Mark::new());
        assert_eq!(run(&script, b""), format!("{}127;", mark.0));
    }

    #[test]
    fn input_comes_in_parts_and_ends() {
        let (mark, taken) = (Mark::new(), Mark::new());
        let script = apart(
            &Wanted {
                stdin: true,
                ..wanted(&["cat"])
            },
            &mark,
            &taken,
        );
        let said = run(&script, b"3\nab\n6\n0\nc d\n0\nignored");
        let taken = format!("{};", taken.0);
        assert_eq!(said.matches(&taken).count(), 2, "{said}");
        let said = said.replace(&taken, "");
        assert_eq!(said, format!("ab\n0\nc d\n{}0;", mark.0));
    }

    #[test]
    fn what_is_typed_holds_no_mark() {
        let mark = Mark::new();
        assert!(!boot(&mark).contains(&mark.0));
        assert!(!terminal(&wanted(&["sh"]), &mark, None).contains(&mark.0));
    }

    #[test]
    fn only_terminals_are_sized() {
        let size = Size {
            width: 120,
            height: 40,
        };
        let script = resize("/dev/pts/3", size);
        assert_eq!(
            script.as_deref(),
            Some(":;stty rows 40 cols 120 </dev/pts/3\n")
        );
        assert_eq!(resize("/dev/x;reboot", size), None);
        assert_eq!(resize("not a tty", size), None);
    }
}
