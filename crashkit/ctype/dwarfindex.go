package ctype

import (
	"bytes"
	"debug/dwarf"
	"runtime"
	"sync"
	"sync/atomic"

	"crashlab/crashkit/internal/die"
)

// dwarfIndex finds types and enumerators by name. Units are read in the order of
// the file, as many as it takes: the first ones of a kernel have most types.
type dwarfIndex struct {
	d *die.Data

	mu      sync.Mutex
	done    int // units that were read
	batch   int // how many to read next
	all     map[named]uint32
	seen    [kinds]bitset // names in .debug_str that are in all
	spelled bool          // names of any length are written out, not only short ones
}

// named is a name, and what it is the name of.
type named struct{ keyword, tag string }

// enumerators is the keyword for enumerators: what is found is their enum.
const enumerators = "enumerator"

// kinds is how many keywords there are.
const kinds = 5

var keywords = [kinds]string{"", "struct", "union", "enum", enumerators}

// bitset has a bit for each byte of .debug_str.
type bitset []uint64

func (b bitset) has(i uint64) bool { return i/64 < uint64(len(b)) && b[i/64]>>(i%64)&1 != 0 }

func (b bitset) add(i uint64) {
	if i/64 < uint64(len(b)) {
		b[i/64] |= 1 << (i % 64)
	}
}

func newDWARFIndex(d *die.Data) *dwarfIndex {
	return &dwarfIndex{d: d, batch: 1, all: make(map[named]uint32)}
}

// maxBatch bounds how many units are read at a time.
const maxBatch = 512

// find returns the offset of the first definition of that name.
func (x *dwarfIndex) find(keyword, tag string) (uint32, bool) {
	if tag == "" {
		return 0, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		if id, ok := x.all[named{keyword, tag}]; ok {
			return id, true
		}
		if units, _ := x.d.Units(); x.done == len(units) || x.done > 0 && !x.possible(tag) {
			return 0, false
		}
		x.more()
	}
}

// shortest is the least length in bytes of the names that compilers put into
// .debug_str: with shorter ones nothing would be saved.
const shortest = 4

// possible reports whether anything can have that name: most of what is asked
// for and not there has a name that the file does not have at all.
func (x *dwarfIndex) possible(tag string) bool {
	if x.spelled || len(tag) < shortest {
		return true
	}
	end := append([]byte(tag), 0)
	return bytes.Contains(x.d.Str, end) || bytes.Contains(x.d.LineStr, end)
}

func (x *dwarfIndex) names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.more() {
	}
	var names []string
	for n := range x.all {
		if n.keyword != enumerators {
			names = append(names, n.tag)
		}
	}
	return names
}

// hit is a name that was found.
type hit struct {
	kind uint8
	off  uint32
	str  uint64 // where the name is in .debug_str, if at
	at   bool
	name []byte
}

// more reads the next units, and reports whether there were any.
func (x *dwarfIndex) more() bool {
	units, _ := x.d.Units() // those before the damage
	units = units[x.done:]
	if len(units) == 0 {
		return false
	}
	if x.seen[0] == nil {
		for i := range x.seen {
			x.seen[i] = make(bitset, len(x.d.Str)/64+1)
		}
	}
	units = units[:min(len(units), x.batch)]
	x.done += len(units)
	x.batch = min(2*x.batch, maxBatch)

	hits := make([][]hit, len(units))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(units)) {
		wg.Go(func() {
			var s die.Scratch
			for i := int(next.Add(1)) - 1; i < len(units); i = int(next.Add(1)) - 1 {
				hits[i] = x.scan(units[i], &s)
			}
		})
	}
	wg.Wait()
	for _, of := range hits {
		for _, h := range of {
			if h.at {
				x.seen[h.kind].add(h.str)
			} else if len(h.name) >= shortest {
				x.spelled = true
			}
			n := named{keywords[h.kind], string(h.name)}
			if _, ok := x.all[n]; !ok {
				x.all[n] = h.off
			}
		}
	}
	return true
}

// langRust and langAssembler are languages whose units have nothing for us: base
// types of Rust are called like typedefs of C (DWARF 5, table 7.17).
const (
	langRust      = 0x1c
	langAssembler = 0x8001
)

var typeTags = die.TagSet(dwarf.TagBaseType, dwarf.TagTypedef, dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType, dwarf.TagEnumerationType)

// scan returns the names in a unit that were not seen before. A unit that is damaged
// has those before the damage.
func (x *dwarfIndex) scan(u *die.Unit, s *die.Scratch) []hit {
	r, err := u.ReaderIn(u.Root, s)
	if err != nil {
		return nil
	}
	var root die.Entry
	if !r.Next(&root) {
		return nil
	}
	if lang, _ := root.Uint(dwarf.AttrLanguage); lang == langRust || lang == langAssembler {
		return nil
	}
	var hits []hit
	note := func(kind uint8, e *die.Entry, off uint64) {
		v, ok := e.Value(dwarf.AttrName)
		if !ok {
			return
		}
		h := hit{kind: kind, off: uint32(off)}
		h.str, h.at = v.StrOffset()
		if h.at && x.seen[kind].has(h.str) {
			return
		}
		if h.name = e.Str(v); len(h.name) > 0 {
			hits = append(hits, h)
		}
	}
	for e := range r.Find(&root, typeTags) {
		kind := uint8(0)
		switch e.Tag {
		case dwarf.TagBaseType, dwarf.TagTypedef:
		case dwarf.TagStructType, dwarf.TagClassType:
			kind = 1
		case dwarf.TagUnionType:
			kind = 2
		case dwarf.TagEnumerationType:
			kind = 3
		default:
			continue
		}
		if _, declared := e.Uint(dwarf.AttrDeclaration); declared {
			continue
		}
		note(kind, e, e.Off)
		if kind == 3 {
			off := e.Off
			for c := range r.Inside(e) {
				if c.Tag == dwarf.TagEnumerator {
					note(4, c, off)
				}
			}
		}
	}
	return hits
}
