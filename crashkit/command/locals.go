package command

import (
	"crashlab/crashkit/ctype"
	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/unwind"
)

// functionLocals are the variables of one function that a frame is in.
type functionLocals struct {
	debuginfo.Place
	Variables []local `json:"variables"`
}

// local is a parameter or a local variable.
type local struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Param bool   `json:"param"`
	Where string `json:"where"` // a register, "memory", or "" for what has no place of its own
	// Address is where the variable is in memory; 0 for others.
	Address uint64 `json:"address,omitempty"`
	Value   value  `json:"value"`
	Error   string `json:"error,omitempty"` // why there is no value

	typ ctype.Type
}

// locals returns the variables of each frame, innermost function first; empty for a frame
// that no file is there for.
func (e *Env) locals(t unwind.Trace, hex bool) ([][]functionLocals, error) {
	if e.Debug == nil {
		return nil, debuginfo.ErrNone
	}
	scopes, err := e.Debug.Locals(t)
	all := make([][]functionLocals, len(scopes))
	r := &valueReader{env: e, hex: hex, budget: maxValues}
	for i, frame := range scopes {
		all[i] = make([]functionLocals, len(frame))
		for j, s := range frame {
			f := functionLocals{Place: s.Place, Variables: make([]local, len(s.Variables))}
			for k, v := range s.Variables {
				f.Variables[k] = r.local(v)
			}
			all[i][j] = f
		}
	}
	return all, err
}

func (r *valueReader) local(v debuginfo.Variable) local {
	l := local{Name: v.Name, Type: spelled(v.Type.String()), Param: v.Param, Where: v.Where, typ: v.Type}
	if err := v.Value.Err(); err != nil {
		l.Error = err.Error()
		l.Value = value{text: "<" + l.Error + ">"}
		return l
	}
	if v.Where == debuginfo.Memory {
		l.Address = uint64(v.Value.Addr())
	}
	r.err = nil
	l.Value = r.read(v.Value, 0)
	if r.err != nil {
		l.Error = r.err.Error()
	}
	return l
}

// locals writes the variables of one frame. Those of functions that were inlined come
// first, each under the function's name.
func (t *Text) locals(frame []functionLocals) {
	for i, f := range frame {
		if len(f.Variables) == 0 {
			continue
		}
		if i < len(frame)-1 {
			t.String("      " + safe(f.Function) + " (inlined):\n")
		} else if i > 0 {
			t.String("      " + safe(f.Function) + ":\n")
		}
		for _, v := range f.Variables {
			t.String("        " + safe(spelled(ctype.Declare(v.typ, v.Name))) + " = ")
			t.value(v.Value, 8)
			t.String("\n")
		}
	}
}
