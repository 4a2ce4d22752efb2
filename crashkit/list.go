package crashkit

import (
	"fmt"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/ctype"
)

// maxList bounds every walk of a list: more entries than a dump can hold.
const maxList = 1 << 22

// List calls yield for each entry of the struct list_head at head
// (include/linux/list.h): an object of type t whose member, by path, is the
// link. It stops when yield returns false. A list that loops without returning
// to its head, or a link that cannot be read, is an error; the entries before
// it have been yielded.
func (p *Program) List(head ctype.Object, t ctype.Type, member string, yield func(ctype.Object) bool) error {
	if err := head.Err(); err != nil {
		return err
	}
	off, err := ctype.OffsetOf(t, member)
	if err != nil {
		return err
	}
	next, err := head.Member("next").Ptr()
	if err != nil {
		return err
	}
	// Brent's algorithm: remember one link and double the distance to it.
	mark, steps, limit := next, 0, 1
	for n := 0; next != head.Addr(); n++ {
		if n >= maxList {
			return fmt.Errorf("list %s: more than %d entries", head.Path(), maxList)
		}
		// The link is read first: where there is none, there is no entry.
		v, err := p.Uint64(next)
		if err != nil {
			return fmt.Errorf("list %s, after %d entries: %w", head.Path(), n, err)
		}
		o := ctype.NewObject(p, t, next-addr.Virt(off), fmt.Sprintf("%s[%d]", head.Path(), n))
		if !yield(o) {
			return nil
		}
		next = addr.Virt(v)
		if next == mark {
			return fmt.Errorf("list %s: loops after %d entries without reaching its head", head.Path(), n+1)
		}
		if steps++; steps == limit {
			mark, steps, limit = next, 0, 2*limit
		}
	}
	return nil
}
