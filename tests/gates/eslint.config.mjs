// Rules for every JavaScript file of the tree. Run by javascript.sh, from the root of the tree.
import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['build/', '**/node_modules/', 'bridges/web/vendor/'] },
  js.configs.recommended,
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: { ecmaVersion: 2024, sourceType: 'module' },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'array-callback-return': 'error',
      curly: ['error', 'multi-line'],
      'dot-notation': 'error',
      eqeqeq: 'error',
      'no-else-return': 'error',
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-restricted-properties': ['error', ...['innerHTML', 'outerHTML', 'insertAdjacentHTML']
        .map((property) => ({ property, message: 'Build DOM nodes instead.' }))],
      'no-throw-literal': 'error',
      'no-unused-vars': ['error', { args: 'all', argsIgnorePattern: '^_' }],
      'no-useless-rename': 'error',
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-arrow-callback': 'error',
      'prefer-const': ['error', { destructuring: 'all' }],
      'prefer-object-spread': 'error',
      'prefer-template': 'error',
      strict: ['error', 'never'],
    },
  },
  {
    files: ['bridges/web/**/*.js'],
    languageOptions: { globals: globals.browser },
    rules: { 'no-shadow': 'error' },
  },
  // Tests of the page hand functions to the browser.
  {
    files: ['tests/**/*.{js,mjs}', 'deploy/**/*.{js,mjs}'],
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
  },
];
