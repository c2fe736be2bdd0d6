//! Interactive shells.

use std::process::{Command, Stdio};

use super::kubectl::{Client, Limit};
use super::text;

/// A Python script that runs a shell in a terminal of 91 by 33, resizes it to 120 by 40, and types
/// Ctrl-C.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.5)
    os.execvp(sys.argv[1], sys.argv[1:])
size = lambda rows, cols: fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
size(33, 91)
out, end = b"", time.time() + 90
def until(text):
    global out
    while text not in out:
        if time.time() > end: sys.exit("never: %r in %r" % (text, out))
        if select.select([fd], [], [], 0.2)[0]:
            try: part = os.read(fd, 65536)
            except OSError: part = b""
            if not part: sys.exit("ended: %r in %r" % (text, out))
            out += part
os.write(fd, b"stty size; echo re''ady\n")
until(b"ready"); assert b"33 91" in out, out
size(40, 120); os.kill(pid, signal.SIGWINCH)
os.write(fd, b"until stty size | grep '40 120'; do sleep 0.2; done; echo siz''ed\n")
until(b"sized")
os.write(fd, b"echo slee''ping; sleep 1000\n")
until(b"sleeping"); time.sleep(1)
os.write(fd, b"\x03")
os.write(fd, b"echo ali''ve; exit 7\n")
until(b"alive")
try:
    while os.read(fd, 65536): pass
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

pub fn terminals(client: &Client<'_>) {
    let kubectl = client.command(&["exec", "-it", "cmd-0", "--", "sh"]);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).arg(kubectl.get_program());
    terminal.args(kubectl.get_args());
    for (name, value) in kubectl.get_envs() {
        terminal.env(name, value.expect("it is set"));
    }
    let piped = terminal.stdout(Stdio::piped()).stderr(Stdio::piped());
    let terminal = piped.spawn().expect("python3");
    let _limit = Limit::of(&terminal);
    let done = terminal.wait_with_output().expect("it ends");
    assert_eq!(
        done.status.code(),
        Some(7),
        "{}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
}
