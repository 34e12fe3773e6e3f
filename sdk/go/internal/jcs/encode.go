package jcs

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// Of is the JSON value that encoding/json would write for a Go value, as a copy: struct tags, Marshaler and
// TextMarshaler count. Unlike there, a string that is not UTF-8 and a field name that is there twice are errors.
func Of(value any) (any, error) { return of(reflect.ValueOf(value), 0) }

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	jsonNumber    = reflect.TypeFor[json.Number]()
)

func of(v reflect.Value, depth int) (any, error) {
	// Cycles end here as well; a pointer counts as no level of its own unless there are very many.
	if depth > 8*MaxDepth {
		return nil, errDeep
	}
	if !v.IsValid() {
		return nil, nil
	}
	if isNil(v) {
		return nil, nil
	}
	if done, value, err := marshaled(v); done {
		return value, err
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return of(v.Elem(), depth+1)
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if i := v.Int(); i <= MaxSafeInteger && i >= -MaxSafeInteger {
			return float64(i), nil
		}
		return nil, errNumber
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if u := v.Uint(); u <= MaxSafeInteger {
			return float64(u), nil
		}
		return nil, errNumber
	case reflect.Float32:
		// The double nearest to the shortest decimal, as encoding/json writes it.
		return Number(strconv.FormatFloat(v.Float(), 'g', -1, 32))
	case reflect.Float64:
		if f := v.Float(); math.Abs(f) <= MaxSafeInteger {
			return f, nil
		}
		return nil, errNumber
	case reflect.String:
		return v.String(), nil
	case reflect.Slice, reflect.Array:
		return ofList(v, depth)
	case reflect.Map:
		return ofMap(v, depth)
	case reflect.Struct:
		return ofStruct(v, depth)
	}
	return nil, &Error{Unsupported, fmt.Sprintf("a value of type %s has no JSON form", v.Type())}
}

func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// marshaled lets a value that knows its own JSON say it; what it says is read strictly.
func marshaled(v reflect.Value) (bool, any, error) {
	if v.Kind() == reflect.Interface || !v.CanInterface() {
		return false, nil, nil
	}
	if v.Type() == jsonNumber {
		value, err := ParseBounded([]byte(v.String()), math.MaxInt)
		if _, isNumber := value.(float64); err == nil && !isNumber {
			err = syntax("not a number")
		}
		return true, value, err
	}
	if v.Kind() != reflect.Pointer && v.CanAddr() && reflect.PointerTo(v.Type()).Implements(jsonMarshaler) {
		v = v.Addr()
	}
	if v.Type().Implements(jsonMarshaler) {
		text, err := v.Interface().(json.Marshaler).MarshalJSON()
		if err != nil {
			return true, nil, &Error{Unsupported, fmt.Sprintf("a value of type %s does not marshal", v.Type())}
		}
		value, err := ParseBounded(text, math.MaxInt)
		return true, value, err
	}
	if v.Type().Implements(textMarshaler) {
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return true, nil, &Error{Unsupported, fmt.Sprintf("a value of type %s does not marshal", v.Type())}
		}
		return true, string(text), nil
	}
	return false, nil, nil
}

func ofList(v reflect.Value, depth int) (any, error) {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	}
	items := make([]any, v.Len())
	for i := range items {
		item, err := of(v.Index(i), depth+1)
		if err != nil {
			return nil, err
		}
		items[i] = item
	}
	return items, nil
}

func ofMap(v reflect.Value, depth int) (any, error) {
	members := make(map[string]any, v.Len())
	for iter := v.MapRange(); iter.Next(); {
		key, err := keyOf(iter.Key())
		if err != nil {
			return nil, err
		}
		if _, twice := members[key]; twice {
			return nil, &Error{DuplicateKey, "duplicate key `" + key + "`"}
		}
		if members[key], err = of(iter.Value(), depth+1); err != nil {
			return nil, err
		}
	}
	return members, nil
}

func keyOf(key reflect.Value) (string, error) {
	switch {
	case key.Kind() == reflect.String:
		return key.String(), nil
	case key.Type().Implements(textMarshaler) && !isNil(key):
		text, err := key.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return "", &Error{Unsupported, fmt.Sprintf("a key of type %s does not marshal", key.Type())}
		}
		return string(text), nil
	case key.CanInt():
		return strconv.FormatInt(key.Int(), 10), nil
	case key.CanUint():
		return strconv.FormatUint(key.Uint(), 10), nil
	}
	return "", &Error{Unsupported, fmt.Sprintf("a key of type %s has no JSON form", key.Type())}
}

func ofStruct(v reflect.Value, depth int) (any, error) {
	fields, err := fieldsOf(v.Type())
	if err != nil {
		return nil, err
	}
	members := make(map[string]any, len(fields))
	for _, field := range fields {
		if member, there := field.of(v); there {
			if members[field.name], err = field.value(member, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return members, nil
}

// value honours the `string` option, which writes a scalar as text.
func (f field) value(v reflect.Value, depth int) (any, error) {
	if !f.quoted {
		return of(v, depth)
	}
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), nil
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), nil
	}
	value, err := of(v, depth)
	switch value.(type) {
	case bool, float64, string:
		text, err := Bytes(value)
		return string(text), err
	}
	return value, err
}
