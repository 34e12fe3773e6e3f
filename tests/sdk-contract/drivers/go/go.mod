module github.com/aegisagent/aegis/tests/sdk-contract/drivers/go

go 1.23

require github.com/aegisagent/aegis/sdk/go v0.0.0

replace github.com/aegisagent/aegis/sdk/go => ../../../../sdk/go
