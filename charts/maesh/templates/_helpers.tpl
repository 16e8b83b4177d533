{{/* The name that all objects begin with: the release's name, followed by the chart's unless it contains it. */}}
{{- define "maesh.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Refuses `acl: true`, which Traefik Mesh had, before anything reads what is below it. */}}
{{- define "maesh.aclIsMap" -}}
{{- if not (kindIs "map" .Values.acl) }}
{{- fail (printf "acl: %v is not how access control is turned on; set acl.enabled to %v" .Values.acl .Values.acl) }}
{{- end }}
{{- end }}

{{/* Labels that select pods. They must never change: selectors are immutable, and commands find the mesh by these labels.
     Takes (list context role). */}}
{{- define "maesh.selector" -}}
app.kubernetes.io/name: maesh
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of pods and of what they are made from; the chart's win. Takes (list context role), and further labels as a third.
     The chart's version is not among them: a new chart with the same image must not replace every pod. */}}
{{- define "maesh.podLabels" -}}
{{- $context := index . 0 }}
{{- $labels := include "maesh.selector" . | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/version" $context.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/part-of" "maesh" }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $context.Release.Service }}
{{- $further := dict }}
{{- if gt (len .) 2 }}{{ $further = index . 2 }}{{ end }}
{{- toYaml (merge $labels $further $context.Values.commonLabels) }}
{{- end }}

{{/* Labels of every other object. Takes what maesh.podLabels takes. */}}
{{- define "maesh.labels" -}}
{{- $context := index . 0 }}
{{- $labels := include "maesh.podLabels" . | fromYaml }}
{{- toYaml (set $labels "helm.sh/chart" (printf "%s-%s" $context.Chart.Name $context.Chart.Version)) }}
{{- end }}

{{- define "maesh.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else if eq $image.tag "latest" }}{{ fail "image.tag: latest cannot be rolled back; name a version, or set image.digest" }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Name of the Secret and of the ConfigMap with the CA of the discovery stream; the controller creates both. */}}
{{- define "maesh.ca" -}}
{{ include "maesh.fullname" . }}-ca
{{- end }}

{{/* Name of the Secret with the certificate of DNS over TLS: yours, or the one that the controller keeps. */}}
{{- define "maesh.dnsCertificate" -}}
{{ .Values.dns.tls.secretName | default (printf "%s-dns-tls" (include "maesh.fullname" .)) }}
{{- end }}

{{/* DNS name of the controller's Service, which is also the name in its certificate. */}}
{{- define "maesh.server" -}}
{{ include "maesh.fullname" . }}-controller.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Metadata of a role's pods. Takes (list context role port), and annotations that the role needs as a fourth. */}}
{{- define "maesh.podMetadata" -}}
{{- $context := index . 0 }}{{ $role := index $context.Values (index . 1) -}}
labels:
  {{- include "maesh.podLabels" (list $context (index . 1) $role.podLabels) | nindent 2 }}
{{- $annotations := dict }}
{{- if gt (len .) 3 }}{{ $annotations = index . 3 }}{{ end }}
{{- if $context.Values.monitoring.annotations }}
{{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" (index . 2 | toString) "prometheus.io/path" "/metrics") }}
{{- end }}
{{- with mergeOverwrite $annotations $role.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every role's pod has in common. Takes (list context role). */}}
{{- define "maesh.pod" -}}
{{- $context := index . 0 }}{{ $name := index . 1 }}{{ $role := index $context.Values $name -}}
serviceAccountName: {{ include "maesh.fullname" $context }}-{{ $name }}
{{- with $context.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Otherwise Kubernetes would set variables for the mesh's Services, which begin with MAESH_ as the program's own do.
enableServiceLinks: false
{{- with $role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $role $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* securityContext of a pod. */}}
{{- define "maesh.podSecurity" -}}
{{- toYaml .Values.podSecurityContext }}
{{- end }}

{{/* strategy or updateStrategy of a role. Takes the value. */}}
{{- define "maesh.strategy" -}}
type: {{ .type }}
{{- if and (eq .type "RollingUpdate") .rollingUpdate }}
rollingUpdate:
  {{- toYaml .rollingUpdate | nindent 2 }}
{{- end }}
{{- end }}

{{/* Spread over nodes and zones, where that is possible. Takes (list context role). */}}
{{- define "maesh.spread" -}}
{{- $context := index . 0 }}
{{- with (index $context.Values (index . 1)).topologySpreadConstraints }}
{{- toYaml . }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "maesh.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Image and securityContext of a container. Takes (list context name). */}}
{{- define "maesh.program" -}}
{{- $context := index . 0 -}}
name: {{ index . 1 }}
image: {{ include "maesh.image" $context }}
imagePullPolicy: {{ $context.Values.image.pullPolicy }}
{{- with $context.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Image, securityContext, probes and resources of a role's container. Takes (list context role). */}}
{{- define "maesh.container" -}}
{{- $context := index . 0 }}{{ $role := index $context.Values (index . 1) -}}
{{ include "maesh.program" . }}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  {{- toYaml $role.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  {{- toYaml $role.readinessProbe | nindent 2 }}
resources:
  {{- toYaml $role.resources | nindent 2 }}
{{- end }}

{{/* Whole seconds of a duration such as 1m30s, rounded up. */}}
{{- define "maesh.seconds" -}}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $milliseconds = add $milliseconds (mul (trimSuffix $unit . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{/* Flags of every role. */}}
{{- define "maesh.logFlags" -}}
- --log-level={{ .Values.logs.level }}
- --log-format={{ .Values.logs.format }}
{{- end }}

{{/* Flags that `maesh dns` needs for this release where it differs from the defaults. */}}
{{- define "maesh.dnsFlags" -}}
{{- $service := printf "%s-dns" (include "maesh.fullname" .) }}
{{- if ne $service "maesh-dns" }} --dns-service={{ $service }}{{ end }}
{{- if ne (join " " .Values.zones) "maesh traefik.mesh" }}{{ range .Values.zones }} --zone={{ . }}{{ end }}{{ end }}
{{- end }}

{{/* Flags of what adds and removes the stanza in the cluster's DNS. */}}
{{- define "maesh.corednsFlags" -}}
- --coredns-mode={{ .Values.coredns.mode }}
- --dns-service={{ include "maesh.fullname" . }}-dns
{{- end }}

{{/* Flags of dns and proxy for the discovery stream from the controller. */}}
{{- define "maesh.subscribeFlags" -}}
- --controller={{ include "maesh.server" . }}:5390
- --tls-ca=/etc/maesh/discovery/ca.crt
- --tls-server-name={{ include "maesh.server" . }}
- --token-file=/etc/maesh/discovery/token
- --state-dir=/var/lib/maesh
{{- end }}

{{- define "maesh.subscribeMounts" -}}
- {name: discovery, mountPath: /etc/maesh/discovery, readOnly: true}
- {name: state, mountPath: /var/lib/maesh}
{{- end }}

{{- define "maesh.subscribeVolumes" -}}
- name: discovery
  projected:
    defaultMode: 288 # 0440
    sources:
      # The controller creates it: at the first start, pods wait for it.
      - configMap:
          name: {{ include "maesh.ca" . }}
          items: [{key: ca.crt, path: ca.crt}]
      # Only the controller accepts this token; the API server does not. It lives a day, to outlast an outage of the API
      # server.
      - serviceAccountToken: {audience: maesh, expirationSeconds: 86400, path: token}
- name: state
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- define "maesh.subscribeEnv" -}}
- name: MAESH_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: MAESH_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}
