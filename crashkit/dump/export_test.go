package dump

import "os"

// JoinParts joins images as OpenFiles does those of several files.
var JoinParts = joinParts

// UnpackKeeping unpacks a file, leaving keep bytes of the disk free.
func UnpackKeeping(path string, f *os.File, size int64, keep uint64) error {
	return unpackTo(path, f, size, keep)
}

// NewRaw opens b as raw memory.
func NewRaw(b []byte, o Options) (*Image, error) { return newImage(mappedSource(b), o) }

// Decode unpacks a stored page.
func Decode(packed []byte, flags uint32, pageSize int) ([]byte, error) {
	return newDecoder(pageSize).decode(packed, flags, nil)
}
