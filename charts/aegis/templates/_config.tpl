{{- define "aegis.toml" -}}
[server]
listen = "0.0.0.0:8080"
# Reached with `kubectl exec` and `kubectl port-forward` only.
admin_listen = "127.0.0.1:8081"
{{- range $key, $value := .Values.server }}
{{ $key }} = {{ int $value }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- $name := include "aegis.fullname" . }}
{{- $own := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) }}

[tls]
listen = "0.0.0.0:8443"
names = {{ concat $own .Values.tls.names | uniq | toJson }}
{{- end }}

[state]
dir = "/var/lib/aegis/state"
node = {{ .Values.node | quote }}

[files]
routes = "/etc/aegis/routes/routes.toml"
policies = "/etc/aegis/policies"

[log]
format = {{ .Values.logFormat | quote }}

[keys]
master = {{ include "aegis.master" . | quote }}
{{- end }}
