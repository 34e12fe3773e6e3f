package receipts

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// segmentFirst is the first leaf's number of a segment's file name; other files in the folder are none.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok || len(digits) != 20 || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil
}

// head is the head file: how far the log is known to be durable, and the hash there.
type head struct {
	nextSeq  uint64
	lastHash string
}

const (
	headMagic = "aegis-receipts-head-1"
	headBytes = 21 + 1 + 20 + 1 + 64 + 1 + 16 + 1
)

func parseHead(line []byte) (head, bool) {
	text, ok := strings.CutSuffix(string(line), "\n")
	words := strings.Split(text, " ")
	if !ok || len(words) != 4 || words[0] != headMagic || len(words[1]) != 20 || !isDigest(words[2]) {
		return head{}, false
	}
	next, err := strconv.ParseUint(words[1], 10, 64)
	whole := strings.Join(words[:3], " ")
	return head{next, words[2]}, err == nil && words[3] == digest([]byte(whole))[:16]
}

// records reads the records of a segment one after the other: a big-endian length in two bytes, then a leaf.
type records struct {
	file io.ReaderAt
	// limit is the offset behind the last byte that may be read, at that of the next record.
	limit, at int64
	buf       []byte
	bufAt     int64
}

type record int

const (
	recordLeaf record = iota
	// recordEnd: nothing, exactly.
	recordEnd
	// recordTorn: bytes that are no whole record, a length of zero or one beyond the end.
	recordTorn
)

// next returns a leaf that is good until the next call.
func (r *records) next() (record, []byte, error) {
	left := r.limit - r.at
	if left == 0 {
		return recordEnd, nil, nil
	}
	if left < 2 {
		return recordTorn, nil, nil
	}
	if err := r.fill(2); err != nil {
		return 0, nil, err
	}
	window := r.window()
	if len(window) < 2 {
		return recordTorn, nil, nil
	}
	whole := 2 + int64(binary.BigEndian.Uint16(window))
	if whole == 2 || left < whole {
		return recordTorn, nil, nil
	}
	if err := r.fill(int(whole)); err != nil {
		return 0, nil, err
	}
	window = r.window()
	if int64(len(window)) < whole {
		// The file is shorter than it was when the limit was taken.
		return recordTorn, nil, nil
	}
	r.at += whole
	return recordLeaf, window[2:whole], nil
}

func (r *records) window() []byte { return r.buf[min(r.at-r.bufAt, int64(len(r.buf))):] }

// fill makes sure that so many bytes are in the buffer, as far as the file has them.
func (r *records) fill(need int) error {
	if len(r.window()) >= need {
		return nil
	}
	size := max(int(min(chunk, r.limit-r.at)), need)
	if cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	n, err := readFullAt(r.file, r.buf[:size], r.at)
	r.buf, r.bufAt = r.buf[:n], r.at
	return err
}

const chunk = 1 << 20

// readFullAt reads until the buffer is full or the file ends.
func readFullAt(file io.ReaderAt, buf []byte, at int64) (int, error) {
	n, err := file.ReadAt(buf, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ioText words an error of the system as the Rust program does.
func ioText(err error) string {
	var number syscall.Errno
	if !errors.As(err, &number) {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return err.Error()
	}
	text := number.Error()
	return strings.ToUpper(text[:1]) + text[1:] + " (os error " + strconv.Itoa(int(number)) + ")"
}
