// Command porcupine gives histories of the key/value contract to Porcupine, a linearizability checker.
//
// It knows the contract of docs and of src/kv, and nothing of the store: no positions, no log. Files whose name begins with
// "stale" were recorded with a planted bug and must be found illegal; all others must be linearizable.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// limit ends a search that takes too long: neither proven nor refuted is a failure.
const limit = 2 * time.Minute

type call struct {
	Client int             `json:"client"`
	Call   uint64          `json:"call"`
	Return uint64          `json:"return"`
	Op     string          `json:"op"`
	Key    string          `json:"key"`
	Value  string          `json:"value"`
	If     *condition      `json:"if"`
	Answer string          `json:"answer"`
	Found  json.RawMessage `json:"found"`
}

type condition struct {
	Absent bool    `json:"absent"`
	Exists bool    `json:"exists"`
	Value  *string `json:"value"`
}

// A state is the entries of the partition as JSON, so that equal ones compare as equal. An empty map is "{}".
type state = string

func decode(s state) map[string]string {
	entries := map[string]string{}
	if err := json.Unmarshal([]byte(s), &entries); err != nil {
		panic(err)
	}
	return entries
}

func encode(entries map[string]string) state {
	// Sorts by key.
	bytes, err := json.Marshal(entries)
	if err != nil {
		panic(err)
	}
	return string(bytes)
}

func with(s state, key, value string) state {
	entries := decode(s)
	entries[key] = value
	return encode(entries)
}

func without(s state, key string) state {
	entries := decode(s)
	delete(entries, key)
	return encode(entries)
}

func (c *condition) holds(s state, key string) bool {
	found, there := decode(s)[key]
	switch {
	case c.Absent:
		return !there
	case c.Exists:
		return there
	default:
		return there && found == *c.Value
	}
}

// changed is the state that a change leaves when it is carried out; false when its condition does not hold.
func (c *call) changed(s state) (state, bool) {
	switch c.Op {
	case "set":
		return with(s, c.Key, c.Value), true
	case "set_if":
		if !c.If.holds(s, c.Key) {
			return s, false
		}
		return with(s, c.Key, c.Value), true
	case "delete":
		return without(s, c.Key), true
	default:
		panic("no change: " + c.Op)
	}
}

// step gives the states that a call may leave with its answer; none when it cannot have had it.
func step(s state, c *call) []state {
	switch c.Answer {
	case "done":
		if next, done := c.changed(s); done {
			return []state{next}
		}
		return nil
	case "predicate_failed":
		if c.If.holds(s, c.Key) {
			return nil
		}
		return []state{s}
	case "unknown":
		// The store died under it: carried out or not.
		if next, done := c.changed(s); done && next != s {
			return []state{s, next}
		}
		return []state{s}
	case "found":
		var expected *string
		if err := json.Unmarshal(c.Found, &expected); err != nil {
			panic(err)
		}
		found, there := decode(s)[c.Key]
		if there != (expected != nil) || (there && found != *expected) {
			return nil
		}
		return []state{s}
	case "entries":
		var expected [][2]string
		if err := json.Unmarshal(c.Found, &expected); err != nil {
			panic(err)
		}
		entries := decode(s)
		keys := make([]string, 0, len(entries))
		for key := range entries {
			if key >= c.Key {
				keys = append(keys, key)
			}
		}
		sort.Strings(keys)
		if len(keys) != len(expected) {
			return nil
		}
		for at, key := range keys {
			if expected[at] != [2]string{key, entries[key]} {
				return nil
			}
		}
		return []state{s}
	default:
		panic("unknown answer: " + c.Answer)
	}
}

var model = (&porcupine.NondeterministicModel{
	Init: func() []interface{} { return []interface{}{"{}"} },
	Step: func(s, input, _ interface{}) []interface{} {
		var next []interface{}
		for _, s := range step(s.(state), input.(*call)) {
			next = append(next, s)
		}
		return next
	},
	DescribeOperation: func(input, _ interface{}) string {
		c := input.(*call)
		return fmt.Sprintf("%s %s %s -> %s %s", c.Op, c.Key, c.Value, c.Answer, c.Found)
	},
}).ToModel()

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var operations []porcupine.Operation
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		c := &call{}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		operations = append(operations, porcupine.Operation{
			ClientId: c.Client, Input: c, Call: int64(c.Call), Return: int64(c.Return),
		})
	}
	return operations, lines.Err()
}

func run(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return err
	}
	kinds := map[bool]int{}
	for _, path := range paths {
		operations, err := read(path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".jsonl")
		planted := strings.HasPrefix(name, "stale")
		expected := porcupine.Ok
		if planted {
			expected = porcupine.Illegal
		}
		begun := time.Now()
		result, info := porcupine.CheckOperationsVerbose(model, operations, limit)
		fmt.Printf("%s: %d calls, %s, %.1f s\n", name, len(operations), result, time.Since(begun).Seconds())
		if result != expected {
			picture := filepath.Join(dir, name+".html")
			if err := porcupine.VisualizePath(model, info, picture); err != nil {
				return err
			}
			return fmt.Errorf("%s is %s, expected %s; see %s", name, result, expected, picture)
		}
		kinds[planted]++
	}
	if kinds[true] == 0 || kinds[false] == 0 {
		return fmt.Errorf("%s: no histories of both kinds, sound ones and one with the planted bug", dir)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: porcupine DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
