package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// order is one line on the supervisor's stdin.
type order struct {
	Do   string   `json:"do"` // start, stop (SIGTERM first), kill (SIGKILL)
	Name string   `json:"name"`
	Args []string `json:"args"` // of start; absent: those of the last start
}

// said is one line on the supervisor's stdout. Ready comes first. Every order is answered, in turn, by
// started, ended or refused; died stands between answers, when a component ends that nobody asked to.
type said struct {
	Event     string `json:"event"`
	Directory string `json:"directory,omitempty"`
	Name      string `json:"name,omitempty"`
	Pid       int    `json:"pid,omitempty"`
	Status    string `json:"status,omitempty"`
	Message   string `json:"message,omitempty"`
}

// patience is how long a component may take to end after SIGTERM. Long enough for an orderly end
// of the API server, which first lets its requests finish.
const patience = 5 * time.Second

// A supervisor owns a directory and the components that work in it.
type supervisor struct {
	directory  string
	components map[string]*component
	exits      chan exit
	overdue    chan *running
	answers    *json.Encoder
}

// supervise makes a directory, says its path, and starts and ends components as told on stdin. When
// stdin ends, because whoever holds its other end has ended in whatever way, or on a signal, it kills
// all components, removes the directory and exits. Should it be killed itself with SIGKILL, then the
// kernel kills the components (see dieWithParent), and only the directory stays.
func supervise() int {
	// The kernel ties a child's life to the thread that forked it, so one thread forks them all, and
	// it is the main one, which lives as long as the process.
	runtime.LockOSThread()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// A reader that is gone must not end us before the directory is removed.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	directory, err := os.MkdirTemp("", "burstpool-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane: making a directory for the cluster:", err)
		return 1
	}
	s := &supervisor{
		directory:  directory,
		components: map[string]*component{},
		exits:      make(chan exit),
		overdue:    make(chan *running),
		answers:    json.NewEncoder(os.Stdout),
	}
	for _, inner := range []string{"logs", "tmp"} {
		if err := os.Mkdir(filepath.Join(directory, inner), 0o700); err != nil {
			fmt.Fprintln(os.Stderr, "controlplane: making a directory for the cluster:", err)
			return s.end()
		}
	}
	s.say(said{Event: "ready", Directory: directory})
	s.serve(orders(), ended)
	return s.end()
}

// orders reads stdin line by line; the channel closes at its end.
func orders() <-chan []byte {
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		in := bufio.NewReader(os.Stdin)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	return lines
}

func (s *supervisor) serve(lines <-chan []byte, ended <-chan os.Signal) {
	for {
		select {
		case line, open := <-lines:
			if !open {
				return
			}
			var o order
			if err := json.Unmarshal(line, &o); err != nil {
				s.refuse("", err)
			} else {
				s.obey(o)
			}
		case <-ended:
			return
		case over := <-s.exits:
			s.note(over)
		case late := <-s.overdue:
			late.kill()
		}
	}
}

func (s *supervisor) obey(o order) {
	c := s.components[o.Name]
	if c == nil {
		c = &component{name: o.Name, log: filepath.Join(s.directory, "logs", o.Name+".log")}
		s.components[o.Name] = c
	}
	switch o.Do {
	case "start":
		if o.Args != nil {
			c.args = o.Args
		}
		pid, err := c.start(filepath.Join(s.directory, "tmp"), s.exits)
		if err != nil {
			s.refuse(o.Name, err)
			return
		}
		s.say(said{Event: "started", Name: o.Name, Pid: pid})
	case "stop", "kill":
		run := c.run
		if run == nil {
			s.refuse(o.Name, fmt.Errorf("it is not running"))
			return
		}
		run.asked = true // note answers, once it has ended
		if o.Do == "kill" {
			run.kill()
			return
		}
		run.terminate()
		time.AfterFunc(patience, func() { s.overdue <- run })
	default:
		s.refuse(o.Name, fmt.Errorf("no such order: %q", o.Do))
	}
}

// note takes in that a component has ended.
func (s *supervisor) note(over exit) {
	c := over.component
	asked := c.run.asked
	c.run = nil
	if asked {
		s.say(said{Event: "ended", Name: c.name, Status: over.status})
		return
	}
	tail := c.tail()
	s.say(said{Event: "died", Name: c.name, Status: over.status, Message: tail})
	fmt.Fprintf(os.Stderr, "controlplane: %s has ended by itself: %s. The end of its log:\n%s\n", c.name, over.status, tail)
}

// end kills what runs, waits for it and removes the directory.
func (s *supervisor) end() int {
	left := 0
	for _, c := range s.components {
		if c.run != nil {
			c.run.kill()
			left++
		}
	}
	for left > 0 {
		select {
		case <-s.exits:
			left--
		case <-s.overdue: // killed above
		}
	}
	if err := os.RemoveAll(s.directory); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane: removing the cluster's directory:", err)
		return 1
	}
	return 0
}

func (s *supervisor) refuse(name string, err error) {
	s.say(said{Event: "refused", Name: name, Message: err.Error()})
}

// say writes a line. A reader that is gone is no reason to stop: stdin will end too.
func (s *supervisor) say(line said) {
	_ = s.answers.Encode(line)
}
