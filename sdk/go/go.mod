module github.com/aegisagent/aegis/sdk/go

go 1.23
