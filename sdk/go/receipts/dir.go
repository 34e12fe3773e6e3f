package receipts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Progress is how far a verification is.
type Progress struct{ Leaves, Bytes, TotalBytes uint64 }

// Verify verifies a log's directory or a bundle's file, whichever is there. `progress` may be nil.
func Verify(path string, progress func(Progress)) *Report {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return VerifyDir(path, progress)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return unreadable("cannot read `%s`: %s", path, ioText(err))
	}
	return VerifyBundle(text)
}

// VerifyDir verifies a log's directory in memory that does not grow with the log. The log may be in use: then what
// is written meanwhile may or may not be covered.
func VerifyDir(dir string, progress func(Progress)) *Report {
	if progress == nil {
		progress = func(Progress) {}
	}
	run := &run{dir: dir, report: newReport(), chain: chain{lastHash: genesis}, links: newLinks(), progress: progress}
	run.verify()
	r := run.report
	r.Node = run.chain.node
	r.WithoutOutcome = run.links.withoutOutcome()
	if r.Leaves > 0 {
		r.LastHash = &run.chain.lastHash
	}
	return r
}

type run struct {
	dir      string
	report   *Report
	chain    chain
	links    *links
	head     head
	total    uint64
	progress func(Progress)
}

// unreadable and tampered end a run; they return false.
func (r *run) unreadable(what string, err error) bool {
	r.report.Verdict, r.report.Why = Unreadable, "cannot read "+what+": "+ioText(err)
	return false
}

func (r *run) tampered(seq uint64, file, why string) bool {
	r.report.Verdict, r.report.Seq, r.report.File, r.report.Why = Tampered, seq, file, why
	return false
}

func (r *run) verify() bool {
	// The head comes first: in a log that is in use, the leaves are then never behind it.
	if !r.readHead() {
		return false
	}
	firsts, ok := r.segments()
	if !ok {
		return false
	}
	for _, first := range firsts {
		file, size, err := r.open(first)
		if err != nil {
			return r.unreadable("a segment", err)
		}
		file.Close()
		r.total += uint64(size)
	}
	for at, first := range firsts {
		if !r.segment(first, at+1 == len(firsts)) {
			return false
		}
	}
	if r.chain.nextSeq < r.head.nextSeq {
		why := fmt.Sprintf("the head file says that %d leaves are durable, and they are gone", r.head.nextSeq)
		return r.tampered(r.chain.nextSeq, "head", why)
	}
	r.report.BeyondHead = r.chain.nextSeq - r.head.nextSeq
	return true
}

// readHead reads again where the file is just being rewritten. Without it nothing vouches for the last leaf.
func (r *run) readHead() bool {
	file, err := os.Open(filepath.Join(r.dir, "head"))
	if err != nil {
		return r.unreadable("the head file", err)
	}
	defer file.Close()
	for range headTries {
		line := make([]byte, headBytes+1)
		n, err := readFullAt(file, line, 0)
		if err != nil {
			return r.unreadable("the head file", err)
		}
		if head, ok := parseHead(line[:n]); ok {
			r.head = head
			return true
		}
		time.Sleep(headPause)
	}
	r.report.Verdict, r.report.Why = Unreadable, "the head file is damaged"
	return false
}

func (r *run) segments() ([]uint64, bool) {
	entries, err := os.ReadDir(filepath.Join(r.dir, "segments"))
	if err != nil {
		return nil, r.unreadable("the segments", err)
	}
	var firsts []uint64
	for _, entry := range entries {
		if first, ok := segmentFirst(entry.Name()); ok {
			firsts = append(firsts, first)
		} else {
			r.report.find("`segments/%s` is no segment", entry.Name())
		}
	}
	slices.Sort(firsts)
	return firsts, true
}

func (r *run) open(first uint64) (*os.File, int64, error) {
	file, err := os.Open(filepath.Join(r.dir, segmentName(first)))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func segmentName(first uint64) string { return fmt.Sprintf("segments/%020d.log", first) }

func (r *run) segment(first uint64, last bool) bool {
	name := segmentName(first)
	file, size, err := r.open(first)
	if err != nil {
		return r.unreadable("a segment", err)
	}
	defer file.Close()
	if size == 0 && last {
		// Made in advance, for when the one before it is full.
		return true
	}
	if expected := r.chain.nextSeq; first != expected || size == 0 {
		why := fmt.Sprintf("it starts at leaf %d with %d bytes, expected leaf %d", first, size, expected)
		return r.tampered(expected, name, why)
	}
	r.report.Segments++
	before := r.report.Bytes
	records := &records{file: file, limit: size}
	for {
		at := records.at
		r.report.Bytes = before + uint64(at)
		seq := r.chain.nextSeq
		hole := last && seq >= r.head.nextSeq
		kind, leaf, err := records.next()
		switch {
		case err != nil:
			return r.unreadable("a segment", err)
		case kind == recordEnd:
			return true
		// A hole that a power cut left reads as zeros, which no leaf has.
		case hole && (kind == recordTorn || bytes.IndexByte(leaf, 0) >= 0):
			r.report.find("%d bytes behind the last leaf are torn (leaf %d was never acknowledged): a crash, "+
				"or a write under way", size-at, seq)
			return true
		case kind == recordTorn:
			return r.tampered(seq, name, "no whole record")
		}
		if err := r.leaf(leaf); err != nil {
			return r.tampered(seq, name, err.Error())
		}
		if r.report.Leaves%tellEvery == 0 {
			r.progress(Progress{r.report.Leaves, r.report.Bytes, r.total})
		}
	}
}

func (r *run) leaf(text []byte) error {
	view, err := readLeaf(text)
	if err != nil {
		return err
	}
	if err := r.chain.check(view); err != nil {
		return err
	}
	odd, err := r.links.follow(view)
	if err != nil {
		return err
	}
	if odd != "" {
		r.report.find("%s", odd)
	}
	if back := r.chain.lastTS - view.ts; r.chain.nextSeq > 0 && back > 0 {
		if back <= clockStepMS {
			return fmt.Errorf("its time is %d ms before that of the leaf before it, which the log does not write", back)
		}
		r.report.find("the clock was set back by %d ms at leaf %d", back, view.seq)
	}
	r.report.Types[view.typeName]++
	r.chain.advance(text, view)
	if r.chain.nextSeq == r.head.nextSeq && r.chain.lastHash != r.head.lastHash {
		return errors.New("it does not have the hash in the head file")
	}
	r.report.count(view)
	return nil
}

// count adds a leaf that holds.
func (r *Report) count(v *leafView) {
	r.Leaves++
	if r.FirstTS == nil {
		r.FirstTS = &v.ts
	}
	r.LastTS = &v.ts
}

const (
	headTries = 5
	headPause = 5 * time.Millisecond
	tellEvery = 16_384
	// Times may go back by more than this where the clock was set; the log does not write less.
	clockStepMS = 5_000
)
