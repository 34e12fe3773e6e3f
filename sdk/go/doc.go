// Package aegisagent asks an Aegis gateway before a function runs.
//
// A Client asks in the name of one agent. Protect wraps a function: before it runs, its arguments become an action
// of the gateway's catalog, the gateway decides, people approve where a policy wants them to, and every hash is
// compared. Whatever does not agree is an *Error, and then the function has not run.
//
// The contract that the SDKs of all languages keep is docs/sdk.md in the gateway's repository.
package aegisagent

// Version of this module.
const Version = "0.1.0"
