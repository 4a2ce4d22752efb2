package qemu

import "encoding/binary"

// The functions below return 16-bit x86 code that runs from a ROM, without
// memory or stack. Pieces can be put one after another.

// out8 writes v to an I/O port.
func out8(port uint16, v byte) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee} // mov $port,%dx; mov $v,%al; out %al,(%dx)
}

func out16(port, v uint16) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0xb8, byte(v), byte(v >> 8), 0xef}
}

func out32(port uint16, v uint32) []byte {
	code := []byte{0xba, byte(port), byte(port >> 8), 0x66, 0xb8}
	return append(binary.LittleEndian.AppendUint32(code, v), 0x66, 0xef)
}

// print writes s, of at most 4 KB, to ttyS0.
func print(s string) []byte {
	var code []byte
	for _, b := range []byte(s) {
		code = append(code, out8(0x3f8, b)...)
		code = append(code,
			0xba, 0xfd, 0x03, // mov $0x3fd,%dx
			0xec,       // in (%dx),%al
			0xa8, 0x40, // test $0x40,%al: all sent
			0x74, 0xfb) // jz in
	}
	return code
}

// repeat executes code n times, if it leaves %cx alone.
func repeat(n uint16, code []byte) []byte {
	back := uint16(-(len(code) + 5))
	out := append([]byte{0xb9, byte(n), byte(n >> 8)}, code...) // mov $n,%cx
	return append(out,
		0x49,                                  // dec %cx
		0x0f, 0x85, byte(back), byte(back>>8)) // jnz code
}

// forever executes code over and over.
func forever(code []byte) []byte {
	back := uint16(-(len(code) + 3))
	return append(code[:len(code):len(code)], 0xe9, byte(back), byte(back>>8)) // jmp code
}

// halt does nothing any more.
func halt() []byte { return []byte{0xfa, 0xf4, 0xeb, 0xfd} } // cli; hlt; jmp hlt

// reset resets the machine through the chipset's reset control register.
func reset() []byte { return append(out8(0xcf9, 0x06), halt()...) }

// powerOff maps the registers of the PIIX4's power management to port 0x600
// and goes to sleep state S5.
func powerOff() []byte {
	const config, data, device = 0xcf8, 0xcfc, 0x80000b00
	var code []byte
	code = append(code, out32(config, device|0x40)...)
	code = append(code, out32(data, 0x601)...) // PMBA
	code = append(code, out32(config, device|0x80)...)
	code = append(code, out8(data, 1)...)       // PMREGMISC: enable
	code = append(code, out16(0x604, 1<<13)...) // PM1a_CNT: SLP_EN, type 0
	return append(code, halt()...)
}

// echoControl sends every byte that arrives at ttyS1 back.
func echoControl() []byte {
	return []byte{
		0xba, 0xfd, 0x02, // 0: mov $0x2fd,%dx
		0xec,       // 3: in (%dx),%al
		0xa8, 0x01, // 4: test $1,%al: data ready
		0x74, 0xf8, // 6: jz 0
		0xba, 0xf8, 0x02, // 8: mov $0x2f8,%dx
		0xec,       // b: in (%dx),%al
		0xee,       // c: out %al,(%dx)
		0xeb, 0xf1, // d: jmp 0
	}
}
