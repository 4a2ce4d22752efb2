package dumptest

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"slices"

	"crashlab/crashkit/addr"
)

// hugeEvery is how many page frames there are in [Memory.Huge] to one that is stored.
const hugeEvery = 1000

// Huge writes the memory as part of that of a machine with size bytes of it, as
// a plain kdump-compressed file. All from 0 up to size is memory; of what m does
// not have, a page in a thousand is stored, all zeroes, and the rest excluded.
// Pages that are stored share their place if they are equal to the one before,
// so that the file stays small where w is a file that may have holes.
func (m Memory) Huge(w io.WriterAt, size uint64, o KdumpOptions) error {
	o.Version = 6
	le, page := binary.LittleEndian, m.pageSize()
	nPFN := addr.PFN(size / uint64(page))
	sub := m.subHeader(o, nPFN)
	mapLen := len(pad(make([]byte, (nPFN+7)/8), page))

	memory, stored := make([]byte, mapLen), make([]byte, mapLen)
	for i := range nPFN / 8 {
		memory[i] = 0xff
	}
	pfns := slices.Sorted(maps.Keys(m.Pages))
	for pfn := addr.PFN(0); pfn < nPFN; pfn += hugeEvery {
		pfns = append(pfns, pfn)
	}
	slices.Sort(pfns)
	pfns = slices.Compact(pfns)
	for _, pfn := range pfns {
		stored[pfn/8] |= 1 << (pfn % 8)
	}

	mapOff := page + len(sub)
	descOff := mapOff + 2*mapLen
	dataOff := descOff + 24*len(pfns)
	var descs, data, last []byte
	for _, pfn := range pfns {
		b := m.page(pfn)
		if !bytes.Equal(b, last) {
			data, last = append(data, b...), b
		}
		descs = le.AppendUint64(descs, uint64(dataOff+len(data)-page))
		descs = le.AppendUint32(descs, uint32(page))
		descs = le.AppendUint32(descs, 0)
		descs = le.AppendUint64(descs, 0)
	}
	for _, part := range []struct {
		b  []byte
		at int
	}{
		{m.header(o, nPFN, len(sub), 2*mapLen), 0},
		{sub, page},
		{memory, mapOff},
		{stored, mapOff + mapLen},
		{descs, descOff},
		{data, dataOff},
	} {
		if _, err := w.WriteAt(part.b, int64(part.at)); err != nil {
			return err
		}
	}
	return nil
}
