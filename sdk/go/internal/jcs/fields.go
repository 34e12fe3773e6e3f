package jcs

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// field is a struct field under the name it has in JSON.
type field struct {
	name                        string
	index                       []int
	tagged                      bool
	omitEmpty, omitZero, quoted bool
}

// of is the field's value, unless it is left out.
func (f field) of(v reflect.Value) (reflect.Value, bool) {
	for _, i := range f.index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return v, false
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, !(f.omitEmpty && isEmpty(v)) && !(f.omitZero && isZero(v))
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func isZero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok && !isNil(v) {
		return z.IsZero()
	}
	return v.IsZero()
}

type fieldList struct {
	fields []field
	err    error
}

var known sync.Map // reflect.Type to fieldList

// fieldsOf lists the fields that encoding/json would write, in order. Where it would silently drop
// fields of one name, this is an error.
func fieldsOf(t reflect.Type) ([]field, error) {
	if list, ok := known.Load(t); ok {
		return list.(fieldList).fields, list.(fieldList).err
	}
	var list fieldList
	all := collect(t, nil, map[reflect.Type]bool{t: true})
	for _, f := range all {
		wins, err := dominates(f, all, t)
		if err != nil {
			list = fieldList{nil, err}
			break
		}
		if wins {
			list.fields = append(list.fields, f)
		}
	}
	known.Store(t, list)
	return list.fields, list.err
}

// dominates follows encoding/json: the least nested, then the tagged.
func dominates(f field, all []field, t reflect.Type) (bool, error) {
	rivals := 0
	for _, other := range all {
		if other.name != f.name || len(other.index) > len(f.index) {
			continue
		}
		if len(other.index) < len(f.index) || other.tagged && !f.tagged {
			return false, nil
		}
		if other.tagged == f.tagged {
			rivals++
		}
	}
	if rivals > 1 {
		return false, &Error{DuplicateKey, fmt.Sprintf("two fields of %s have the name `%s`", t, f.name)}
	}
	return true, nil
}

func collect(t reflect.Type, prefix []int, path map[reflect.Type]bool) []field {
	var found []field
	for i := range t.NumField() {
		sf := t.Field(i)
		index := append(append([]int{}, prefix...), i)
		tag := sf.Tag.Get("json")
		if tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if sf.Anonymous {
			inner := sf.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if !sf.IsExported() && inner.Kind() != reflect.Struct {
				continue
			}
			if name == "" && inner.Kind() == reflect.Struct {
				if !path[inner] {
					path[inner] = true
					found = append(found, collect(inner, index, path)...)
					delete(path, inner)
				}
				continue
			}
		} else if !sf.IsExported() {
			continue
		}
		f := field{name: name, index: index, tagged: name != ""}
		if name == "" {
			f.name = sf.Name
		}
		for _, option := range strings.Split(options, ",") {
			f.omitEmpty = f.omitEmpty || option == "omitempty"
			f.omitZero = f.omitZero || option == "omitzero"
			f.quoted = f.quoted || option == "string"
		}
		found = append(found, f)
	}
	return found
}
