package receipts

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
)

// links follows outcomes to the intents they name, in bounded memory.
type links struct {
	seed maphash.Seed
	max  int
	open map[uint64]waiting
	// order holds the keys of open, and some that are gone, ascending from the index next.
	order []uint64
	next  int
	// Intents up to forgotten may have been forgotten.
	forgotten          *uint64
	forgottenForwarded uint64
	forwarded          uint64
}

// waiting is an allowed intent without an outcome.
type waiting struct {
	decision  uint64
	forwarded bool
}

// maxWaiting bounds the memory to some 60 MB.
const maxWaiting = 1_000_000

func newLinks() *links {
	return &links{seed: maphash.MakeSeed(), max: maxWaiting, open: map[uint64]waiting{}}
}

// follow returns an error for a reference that cannot be, and a text for one that is odd.
func (l *links) follow(v *leafView) (string, error) {
	var odd *uint64
	var broken error
	switch v.typeName {
	case "intent.v1":
		return "", l.intent(v)
	case "outcome.v1":
		if v.intentSeq == nil || v.decisionID == nil {
			return "", errors.New("its reference to an intent is missing")
		}
		odd, broken = l.outcome(v.seq, *v.intentSeq, *v.decisionID)
	case "outcomes.v1":
		if v.entries == nil {
			return "", errors.New("`entries` is missing")
		}
		walked := items(v.entries, func(raw []byte) {
			seq, id, ok := entryLink(raw)
			entryOdd, err := (*uint64)(nil), errors.New("an entry's reference to an intent is missing")
			if ok {
				entryOdd, err = l.outcome(v.seq, seq, id)
			}
			if broken == nil {
				if err != nil {
					broken = err
				} else if entryOdd != nil {
					odd = entryOdd
				}
			}
		})
		if !walked {
			return "", errors.New("`entries` is no array")
		}
	}
	if broken != nil {
		return "", broken
	}
	if odd != nil {
		return fmt.Sprintf("leaf %d has an outcome for leaf %d, which does not wait for one", v.seq, *odd), nil
	}
	return "", nil
}

// withoutOutcome counts allowed intents of the gateway's own doors that have no outcome.
func (l *links) withoutOutcome() uint64 { return l.forgottenForwarded + l.forwarded }

func (l *links) intent(v *leafView) error {
	if v.decision == nil || v.decisionID == nil {
		return errors.New("`decision` or `decision_id` is missing")
	}
	if *v.decision != "allow" || v.dryRun {
		return nil
	}
	forwarded := v.door != nil && (*v.door == "route" || *v.door == "connect" || *v.door == "sql")
	l.open[v.seq] = waiting{maphash.String(l.seed, *v.decisionID), forwarded}
	l.order = append(l.order, v.seq)
	if forwarded {
		l.forwarded++
	}
	if len(l.open) > l.max {
		l.forget()
	}
	return nil
}

// forget drops the oldest that waits.
func (l *links) forget() {
	for l.next < len(l.order) {
		seq := l.order[l.next]
		l.next++
		oldest, ok := l.open[seq]
		if !ok {
			continue
		}
		delete(l.open, seq)
		l.forgotten = &seq
		if oldest.forwarded {
			l.forwarded--
			l.forgottenForwarded++
		}
		break
	}
	l.compact()
}

// compact drops the keys that are gone from order, so that it does not grow with the log.
func (l *links) compact() {
	if len(l.order) > 2*len(l.open)+4096 {
		l.order = slices.DeleteFunc(l.order[l.next:], func(seq uint64) bool {
			_, there := l.open[seq]
			return !there
		})
		l.next = 0
	}
}

// outcome returns the leaf it names where that does not wait for one, or why it cannot be.
func (l *links) outcome(own, intent uint64, decisionID string) (*uint64, error) {
	if intent >= own {
		return nil, fmt.Errorf("it is the outcome of leaf %d, which is not before it", intent)
	}
	found, ok := l.open[intent]
	if !ok {
		if l.forgotten != nil && intent <= *l.forgotten {
			return nil, nil
		}
		return &intent, nil
	}
	delete(l.open, intent)
	if found.forwarded {
		l.forwarded--
	}
	l.compact()
	if found.decision != maphash.String(l.seed, decisionID) {
		return nil, fmt.Errorf("its `decision_id` is not that of leaf %d", intent)
	}
	return nil, nil
}
