module aegis.example/tests/clients/go

go 1.24
