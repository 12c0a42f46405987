import type { FieldsOf } from './field.ts'
import { list, path } from './values.ts'

/** OME documents and what they refer to. */
export const manifestFields: FieldsOf<'manifests' | 'secretsDir' | 'configMapsDir'> = {
  manifests: {
    file: 'manifests',
    type: list(path('file')),
    default: [],
    flag: 'manifest',
    placeholder: 'FILE',
    repeatable: true,
    doc: 'File with OME documents: MCPServer, MCPRoute and gateway defaults. Their policies come on top of those of the file: every layer must be met.',
  },
  secretsDir: {
    file: 'secretsDir',
    type: path('place'),
    default: '/etc/mcp-sidecar/secrets',
    doc: 'Folder where the Secrets that documents refer to are mounted, as `NAME/KEY`. What is not there is looked for in the variable `MCP_SIDECAR_SECRET_NAME__KEY`, in capitals, with `_` for any other sign.',
  },
  configMapsDir: {
    file: 'configMapsDir',
    type: path('place'),
    default: '/etc/mcp-sidecar/configmaps',
    doc: 'Folder where the ConfigMaps that documents refer to are mounted, as `NAME/KEY`; else the variable `MCP_SIDECAR_CONFIGMAP_NAME__KEY`.',
  },
}
