package jcs

import (
	"fmt"
	"reflect"
)

// MemberError names the member that has no canonical form.
type MemberError struct {
	Name string
	Err  *Error
}

func (e *MemberError) Error() string { return "`" + e.Name + "`: " + e.Err.Detail }

// Unwrap is the reason.
func (e *MemberError) Unwrap() error { return e.Err }

// Members are the fields of a struct or the entries of a map, each as its JSON value, and the names of all that there
// are. Names that `skip` holds are not even looked at. A type that is neither is an Error with Unsupported.
func Members(value any, skip map[string]bool) (map[string]any, []string, error) {
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return nil, nil, &Error{Unsupported, "arguments must be a struct or a map, not nil"}
		}
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Struct:
		return structMembers(v, skip)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		members := make(map[string]any, v.Len())
		var names []string
		for iter := v.MapRange(); iter.Next(); {
			name := iter.Key().String()
			names = append(names, name)
			if skip[name] {
				continue
			}
			if err := member(members, name, func() (any, error) { return of(iter.Value(), 0) }); err != nil {
				return nil, nil, err
			}
		}
		return members, names, nil
	}
	return nil, nil, &Error{Unsupported, fmt.Sprintf("arguments must be a struct or a map with string keys, not %T", value)}
}

func structMembers(v reflect.Value, skip map[string]bool) (map[string]any, []string, error) {
	fields, err := fieldsOf(v.Type())
	if err != nil {
		return nil, nil, &Error{Unsupported, err.Error()}
	}
	members := make(map[string]any, len(fields))
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
		fv, there := f.of(v)
		if !there || skip[f.name] {
			continue
		}
		if err := member(members, f.name, func() (any, error) { return f.value(fv, 0) }); err != nil {
			return nil, nil, err
		}
	}
	return members, names, nil
}

func member(members map[string]any, name string, value func() (any, error)) error {
	v, err := value()
	if reason, ok := err.(*Error); ok {
		return &MemberError{name, reason}
	}
	members[name] = v
	return err
}
