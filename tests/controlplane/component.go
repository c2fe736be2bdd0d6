package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// A component is one part of the cluster, running or not. Its log outlives restarts.
type component struct {
	name string
	args []string
	log  string
	run  *running // nil: not running
}

// running is one process of a component.
type running struct {
	process *os.Process
	asked   bool // somebody has asked for its end
}

// exit says that a component's process has ended and been waited for.
type exit struct {
	component *component
	status    string
}

// start runs the component in a child process that dies with us; exits hears of its end.
func (c *component) start(temporary string, exits chan<- exit) (int, error) {
	if c.run != nil {
		return 0, fmt.Errorf("it is already running")
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	command := exec.Command(self, append([]string{c.name}, c.args...)...)
	// HOME too: kwok and kubectl would read a developer's own settings there.
	command.Env = append(os.Environ(), "TMPDIR="+temporary, "HOME="+temporary)
	command.Stdout, command.Stderr = log, log
	// A group of its own: an interrupt from the terminal is for us to act on.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(command.SysProcAttr)
	if err := command.Start(); err != nil {
		return 0, err
	}
	c.run = &running{process: command.Process}
	go func() {
		_ = command.Wait() // the state below says the same
		exits <- exit{c, command.ProcessState.String()}
	}()
	return command.Process.Pid, nil
}

// terminate asks the process to end. One that has ended already is fine: its exit is on its way.
func (r *running) terminate() {
	_ = r.process.Signal(syscall.SIGTERM)
}

func (r *running) kill() {
	_ = r.process.Kill()
}

// tail is the end of the component's log, at most 4 KiB, from the start of a line.
func (c *component) tail() string {
	const most = 4096
	log, err := os.Open(c.log)
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	from := max(size-most, 0)
	text := make([]byte, size-from)
	if _, err := log.ReadAt(text, from); err != nil && err != io.EOF {
		return err.Error()
	}
	end := strings.TrimSpace(string(text))
	if _, whole, cut := strings.Cut(end, "\n"); cut && from > 0 {
		return whole
	}
	return end
}
