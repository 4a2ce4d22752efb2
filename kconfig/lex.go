package kconfig

import (
	"fmt"
	"strings"
)

// token is a word of a line of a Kconfig file.
type token struct {
	kind tokenKind
	text string // without the quotes
}

type tokenKind byte

const (
	end tokenKind = iota
	word
	quoted
	macro // $(…), with it
	punctuation
)

// tokenize splits a line of a Kconfig file (scripts/kconfig/lexer.l).
func tokenize(s string) ([]token, error) {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			i++
		case c == '#':
			return out, nil
		case c == '"' || c == '\'':
			text, n, err := quotedString(s[i:])
			if err != nil {
				return nil, err
			}
			out = append(out, token{quoted, text})
			i += n
		case isWord(c) || strings.HasPrefix(s[i:], "$("):
			// A macro may be glued to a word: arch/$(SRCARCH)/Kconfig.
			start, kind := i, word
			for i < len(s) && (isWord(s[i]) || strings.HasPrefix(s[i:], "$(")) {
				if s[i] != '$' {
					i++
					continue
				}
				n, err := macroLen(s[i:])
				if err != nil {
					return nil, err
				}
				kind = macro
				i += n
			}
			out = append(out, token{kind, s[start:i]})
		default:
			n := 1
			for _, two := range []string{"&&", "||", "!=", "<=", ">="} {
				if strings.HasPrefix(s[i:], two) {
					n = 2
				}
			}
			if n == 1 && !strings.ContainsRune("!=<>()", rune(c)) {
				return nil, fmt.Errorf("unexpected %q", c)
			}
			out = append(out, token{punctuation, s[i : i+n]})
			i += n
		}
	}
	return out, nil
}

func isWord(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("_-/.", c) >= 0
}

// quotedString returns the string that s begins with, and how many bytes it
// takes with its quotes. Quotes inside a macro do not end it.
func quotedString(s string) (text string, n int, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return b.String(), i + 1, nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], "$("):
			n, err := macroLen(s[i:])
			if err != nil {
				return "", 0, err
			}
			b.WriteString(s[i : i+n])
			i += n - 1
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0, fmt.Errorf("a string has no end: %s", s)
}

// macroLen returns the length of the macro that s begins with. Like kconfig it
// counts parentheses and nothing else.
func macroLen(s string) (int, error) {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, fmt.Errorf("a macro has no end: %s", s)
}
